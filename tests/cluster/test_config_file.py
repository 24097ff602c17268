"""YAML as people write it: what it would misread is told, with the line and what to write instead."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from cluster.commandline.cli import ConfigError, load_yaml


class Inner(BaseModel):
    rate: float = 1.0


class Settings(BaseModel):
    id: str = "a"
    count: int = 1
    on: bool = False
    counts: list[int] = []
    inner: Inner = Inner()


def load(folder: Path, text: str) -> Settings:
    file = folder / "x.yaml"
    file.write_text(text)
    return load_yaml(file, Settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("count: yes", "x.yaml:1 count: must be a whole number, not 'yes'"),
        ("count: on", "x.yaml:1 count: must be a whole number, not 'on'"),
        ("count: true", "x.yaml:1 count: must be a number, not true"),
        ("counts: [1, false]", "x.yaml:1 counts[1]: must be a number, not false"),
        ("inner:\n  rate: true", "x.yaml:2 inner.rate: must be a number, not true"),
        ("inner: {rate: no}", "x.yaml:1 inner.rate: must be a number, not 'no'"),
        ("count: 010", '010 is not a plain number in YAML (quote it for text: "010"; or write 10)'),
        ("id: 007", '007 is not a plain number in YAML (quote it for text: "007"; or write 7)'),
        ("count: 1:30", '1:30 is not a plain number in YAML (quote it for text: "1:30")'),
        ("count: 1_000", "or write 1000"),
        ("count: 0x10", "0x10 is not a plain number"),
        ("id: 7", "x.yaml:1 id: must be text, not 7 (quote it: \"7\")"),
        ("id: 1.50", "x.yaml:1 id: must be text, not 1.5 (quote it: \"1.50\")"),
        ("on: 2", "x.yaml:1 on: must be true or false, not 2"),
    ],
)  # fmt: skip
def test_what_yaml_would_misread_is_refused_with_the_value_as_written(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert told in str(caught.value)


def test_what_is_quoted_or_plain_is_taken(tmp_path: Path) -> None:
    text = "id: '007'\ncount: 10\non: true\ncounts: [0, 1]\ninner: {rate: 1e-3}\n"
    assert load(tmp_path, text) == Settings(id="007", count=10, on=True, counts=[0, 1], inner=Inner(rate=0.001))
