"""Search by words and pictures: which embeddings are compared, and which are not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.__main__ import main
from catalog.encoder import BaseClip
from catalog.errors import CatalogUsageError
from catalog.filters import Condition
from catalog.search import Nearest, search
from catalog.store import StyleCatalog
from catalog.view import Question
from cluster.storage import Storage
from tests.support.styles import new_style

_ROOT = Path(__file__).parents[2]


class Compass:
    """An encoder whose words are directions in degrees."""

    clip_encoder = "compass"
    base_fingerprint = "f" * 64

    def __init__(self, location: str) -> None:
        self.location = location

    def encode_text(self, text: str) -> list[float]:
        return direction(float(text))

    def encode_image(self, data: bytes) -> list[float]:
        return direction(float(data))


def direction(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def add(catalog: StyleCatalog, style_id: str, degrees: float | None, **fields: Any) -> None:
    embedding = None if degrees is None else direction(degrees)
    content = repr((style_id, degrees, sorted(fields))).encode()
    given = {"clip_embedding": embedding, "clip_encoder": "compass" if degrees is not None else None} | fields
    catalog.register(new_style(catalog.storage, style_id, content, **given))


@pytest.fixture
def catalog(tmp_path: Path) -> StyleCatalog:
    catalog = StyleCatalog.open(Storage.open(tmp_path / "storage"))
    add(catalog, "east", 0, metrics={"structure": 0.9})
    add(catalog, "north", 90, tags=["cold"], metrics={"structure": 0.7})
    add(catalog, "north", 80, tags=["cold"])
    add(catalog, "west", 180)
    add(catalog, "unseen", None)
    return catalog


def ask(catalog: StyleCatalog, **asked: Any) -> Nearest:
    parts = {name: asked.pop(name) for name in ("where", "latest", "limit") if name in asked}
    return search(catalog.view(), Question(("style_id", "version"), **parts), load=Compass, **asked)


def test_the_nearest_come_first_and_filters_hold(catalog: StyleCatalog) -> None:
    found = ask(catalog, text="87")
    assert [f"{row['style_id']}@{row['version']}" for row in found.rows] == ["north@1", "north@2", "east@1", "west@1"]
    assert found.clip_encoder == "compass"
    assert found.rows[0]["similarity"] == pytest.approx(math.cos(math.radians(3)), abs=1e-6)
    assert [row["style_id"] for row in ask(catalog, picture=b"170", limit=1).rows] == ["west"]
    assert [
        row["version"] for row in ask(catalog, text="90", where=[Condition.parse("tags=cold")], latest=True).rows
    ] == [2]
    assert [row["style_id"] for row in ask(catalog, text="90", where=[Condition.parse("structure>0.8")]).rows] == [
        "east"
    ]
    catalog.delete("west")
    assert all(row["style_id"] != "west" for row in ask(catalog, text="180").rows)


def test_embeddings_of_several_encoders_are_not_mixed(catalog: StyleCatalog) -> None:
    add(catalog, "other", 45, clip_encoder="sextant", base_name="other")
    with pytest.raises(CatalogUsageError, match=r"several CLIPs: compass \(base mini64\), sextant \(base other\)"):
        ask(catalog, text="0")
    assert ask(catalog, text="0", where=[Condition.parse("base_name=mini64")]).rows
    with pytest.raises(CatalogUsageError, match=r"by CLIP sextant of base other.*--clip-from"):
        ask(catalog, text="0", where=[Condition.parse("base_name=other")])


def test_rows_older_than_the_encoders_name_go_by_their_base(catalog: StyleCatalog, tmp_path: Path) -> None:
    old = StyleCatalog.open(Storage.open(tmp_path / "old"))
    add(old, "early", 10, clip_encoder=None)
    assert ask(old, text="0").rows[0]["style_id"] == "early"
    add(old, "stranger", 10, clip_encoder=None, base_fingerprint="e" * 64)
    with pytest.raises(CatalogUsageError, match="several CLIPs"):
        ask(old, text="0")


def test_questions_without_an_answer_are_refused(catalog: StyleCatalog) -> None:
    for asked in ({}, {"text": "1", "picture": b"1"}):
        with pytest.raises(CatalogUsageError, match="words or a picture"):
            ask(catalog, **asked)
    with pytest.raises(CatalogUsageError, match="no such style has an embedding"):
        ask(catalog, text="1", where=[Condition.parse("style_id=unseen")])


def test_search_with_the_bundled_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    clip = BaseClip("mini64")
    pictures = sorted((_ROOT / "samples" / "styles").glob("*.jpg"))[:3]
    for picture in pictures:
        fields = {"clip_embedding": clip.encode_image(picture.read_bytes()), "clip_encoder": clip.clip_encoder}
        catalog.register(new_style(catalog.storage, picture.stem, picture.stem.encode(), **fields))
    assert main(["search", "--like", str(pictures[1]), "--storage", str(tmp_path), "--json", "--limit", "2"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert rows[0]["style_id"] == pictures[1].stem
    assert rows[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert f"CLIP {clip.clip_encoder} of base mini64" in said.err
    assert main(["search", "a smiling woman", "--storage", str(tmp_path)]) == 0
    assert pictures[0].stem in capsys.readouterr().out
    assert main(["search", "zzz qqq", "--storage", str(tmp_path)]) == 2
    assert "no word to search by" in capsys.readouterr().err
    assert main(["search", "--like", __file__, "--storage", str(tmp_path)]) == 2
    assert main(["search", "a woman", "--clip-from", str(tmp_path), "--storage", str(tmp_path)]) == 2


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=40),
    st.sampled_from(["style_id", "notes", "base_name", "tags", "structure", "created_at", "license"]),
)
def test_any_value_of_a_condition_is_data(catalog: StyleCatalog, text: str, name: str) -> None:
    for op in ("=", "~", ">=", "!="):
        try:
            condition = Condition.parse(f"{name}{op}{text}")
        except CatalogUsageError:
            continue
        assert all(row.style_id in ("east", "north", "west", "unseen") for row in catalog.list(where=[condition]))
    assert len(catalog.list()) == 5
