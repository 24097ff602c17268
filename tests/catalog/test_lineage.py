"""From a picture back to everything that made it, and to the picture again."""

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs.stylize
from catalog.__main__ import main
from catalog.lineage import flags_of, style_lineage
from catalog.store import StyleCatalog
from cluster.commandline.cli import parse_flags
from cluster.storage import Storage
from jobs.finetuning.styles_file import TrainStylesFlags
from jobs.streaming.command import StylizeFlags
from osasis.base import load_base
from osasis.checkpoint import load_style
from osasis.settings import StylizeConfig, TrainConfig
from osasis.stylize import encode, encoding_for, stylize
from tests.support.in_process import without_cluster
from tests.support.jobs_run import call_job
from tests.support.styles import new_style
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE, make_tiny_base, make_tiny_style

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("where", ["here", pytest.param("in another process", marks=pytest.mark.slow)])
def test_the_printed_command_makes_the_same_bytes(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_cluster(monkeypatch)
    case = Case.make(Storage.open(tmp_path / "it's here"), tmp_path)
    case.add_pictures(5)
    asked = {"lambda_spn": 0.05, "style_levels": "[0,1]", "fit": "pad", "seed": 7}
    asked |= {"text": '["smiling", "a painting"]', "text_steps": 2, "batch_size": 1}
    monkeypatch.setattr("sys.argv", case.argv(**asked))
    assert jobs.stylize.main() == 0
    (row,) = (
        row for row in case.rows()
        if (row["input_uri"][-5:], row["style_id"], row["text"]) == ("3.png", "style-1", "smiling")
    )  # fmt: skip
    shown = ["lineage", row["output_uri"], "--storage", case.root.uri]

    capfd.readouterr()
    assert main([*shown, "--json"]) == 0
    lineage = json.loads(capfd.readouterr().out)
    assert (lineage["picture"]["output_sha256"], lineage["picture"]["text"]) == (row["output_sha256"], "smiling")
    assert lineage["photograph"]["input_uri"] == row["input_uri"]
    assert lineage["style"]["style"] == "style-1@1"
    assert lineage["style"]["base"]["fingerprint"]
    assert lineage["settings"] | {"lambda_spn": 0.05, "style_levels": [0, 1], "seed": 7} == lineage["settings"]
    assert set(lineage["run"]["versions"]) >= {"python", "torch", "ray"}
    assert lineage["run"]["run_id"] == row["run_id"]
    assert lineage["same_bytes"] is True

    again = Storage.open(tmp_path / "again")
    assert main([*shown, "--command", "--output", again.uri]) == 0
    python, *command = shlex.split(capfd.readouterr().out)
    assert python == "python"
    if where == "here":
        assert command[0] == "jobs/stylize.py"
        call_job("stylize", *command[1:])
    else:
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=200)
    (name,) = again.list_files("images")
    assert hashlib.sha256(again.read_bytes(f"images/{name}")).hexdigest() == row["output_sha256"]


def test_pictures_made_together_come_out_as_near_as_rounding_lets_them(tmp_path: Path) -> None:
    """Why the bytes are only promised for batches of one."""
    base = load_base(make_tiny_base(tmp_path / "base", bank=False))
    style = load_style(make_tiny_style(tmp_path / "base", tmp_path / "style.safetensors"), base)
    config = StylizeConfig(encode_steps=10, decode_steps=5)
    photos = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 2 - 1
    one_by_one = [stylize(style, encode(base, photo[None], encoding_for(style, config)), config) for photo in photos]
    together = stylize(style, encode(base, photos, encoding_for(style, config)), config)
    levels = ((together - torch.cat(one_by_one)) * 127.5).abs()
    assert levels.max() < 1, "less than one of the 256 levels of a pixel"


def test_pictures_that_no_manifest_knows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for uri in ("x.png", "out/images/monet@1/x.png", "out/images/../monet@1/x.png", "/etc/passwd"):
        assert main(["lineage", uri, "--storage", str(tmp_path)]) == 2
        assert "no manifest holds this picture" in capsys.readouterr().err


def test_without_the_run_record_no_command_is_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    row: dict[str, Any] = dict.fromkeys(
        ("input_uri", "input_sha256", "params_hash", "output_sha256", "error_type", "error", "transform", "key"), "x"
    )
    uri = case.root.child_uri("out/images/gone@1/x.png")
    row |= {"style_id": "gone", "version": 1, "status": "done", "output_uri": uri, "run_id": "lost", "seed": 0}
    case.manifest().append([row | {"width": 8, "height": 8, "seconds": 1.0}])
    assert main(["lineage", uri, "--storage", case.root.uri, "--json"]) == 0
    lineage = json.loads(capsys.readouterr().out)
    assert (lineage["style"], lineage["run"], lineage["command"]) == (None, None, None)
    assert lineage["photograph"]["input_uri"] == "x"
    assert main(["lineage", uri, "--storage", case.root.uri, "--command"]) == 2
    assert "has no record" in capsys.readouterr().err


def test_a_style_tells_how_it_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage.open(tmp_path / "root")
    config = TrainConfig(learning_rate=3e-5, dropout=False, seed=4)
    catalog = StyleCatalog.open(storage)
    style = catalog.register(new_style(storage, "monet", train_config=config.model_dump(mode="json")))
    command = shlex.split(style_lineage(catalog, style)["command"])
    flags = parse_flags(TrainStylesFlags, command[2:])
    assert flags.train == config
    assert (flags.id, flags.image, flags.base) == ("monet", "samples/x.jpg", "mini64")
    storage.write_bytes("runs/other.json", json.dumps({"job": "import_style", "config": {}}).encode())
    ready_made = style.model_copy(update={"run_id": "other"})
    assert style_lineage(catalog, ready_made)["command"] is None
    assert main(["show", "monet", "--lineage", "--storage", storage.uri]) == 0
    said = capsys.readouterr().out
    assert "3e-05" in said
    assert "jobs/train_styles.py" in said


_ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(
    places=st.lists(_ANYTHING, min_size=4, max_size=4),
    strength=st.floats(0, 1),
    levels=st.none() | st.lists(st.integers(0, 9), max_size=3),
    swap=st.booleans(),
    limit=st.none() | st.integers(1, 10**9),
)
@settings(max_examples=60)
def test_flags_are_read_back_as_they_were(
    places: list[str], strength: float, levels: list[int] | None, swap: bool, limit: int | None
) -> None:
    names = ("storage", "input", "styles", "output")
    values = dict(zip(names, places, strict=True)) | {"style_strength": strength, "style_levels": levels}
    flags = StylizeFlags(**values, swap_conditioning=swap, limit=limit)  # type: ignore[arg-type]
    command = shlex.split(shlex.join(flags_of(flags.model_dump(mode="json"))))
    assert parse_flags(StylizeFlags, command) == flags
