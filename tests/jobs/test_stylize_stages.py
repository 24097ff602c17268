"""The parts of the stylize job without a cluster: keys, inputs, manifest, the undecorated actor."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from deltalake import write_deltalake
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from catalog.manifest import SCHEMA, Manifest
from catalog.output_names import relative_key, uri_key
from catalog.store import StyleCatalog
from cluster.storage import Storage
from jobs.streaming.inputs import FolderSource, open_source, windows
from jobs.streaming.plan import StylizeFlags, make_plan
from jobs.streaming.prepare import WORK, Prepare
from jobs.streaming.stylizer import STYLES_HELD, Stylizer, StylizerTask
from jobs.streaming.variants import Variant
from osasis.image import decode_image
from osasis.settings import StylizeConfig, TextConfig
from tests.support.hostile import encoded, hostile_files, picture, write_files
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE, make_tiny_base, make_tiny_style

FAST = StylizeConfig(encode_steps=10, decode_steps=5)
PATHS = st.lists(st.text(min_size=1).filter(lambda part: "/" not in part), min_size=1, max_size=3).map("/".join)


@given(PATHS)
def test_keys_are_safe_paths(name: str) -> None:
    for key in (relative_key(name), uri_key(f"s3://bucket/{name}")):
        assert all(part.strip(".") and len(part) < 200 for part in key.split("/"))
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~%/")


@given(PATHS, PATHS)
def test_different_inputs_have_different_keys(one: str, other: str) -> None:
    assume(one != other)
    assert relative_key(one) != relative_key(other)
    assert uri_key(one) != uri_key(other)


def test_keys_of_usual_names() -> None:
    assert relative_key("sub/a.jpg") == "sub/a.jpg"
    assert relative_key("größe 1.jpg") == "gr%C3%B6%C3%9Fe%201.jpg"
    assert relative_key("../up") == "%2E%2E/up"
    assert relative_key("a.png/b") != "a.png/b", "the picture of an input 'a' is the file a.png"
    long, longer = "x" * 300 + "1", "x" * 300 + "2"
    assert relative_key(long) != relative_key(longer)


def test_a_folder_lists_its_pictures(tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(["a.JPG", "b/c.png", "notes.txt", ".hidden/d.png", "e.heic"], b"x"))
    source = open_source(str(tmp_path), "uri")
    assert sorted(item.key for item in source.items()) == ["a.JPG", "b/c.png", "e.heic"]
    assert {item.uri for item in source.items()} >= {f"{tmp_path}/a.JPG"}
    assert [len(group) for group in windows(source, 2)] == [2, 1]
    assert [len(group) for group in windows(source, 2, limit=1)] == [1]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_gives_one_input_a_row(tmp_path: Path, kind: str) -> None:
    write_files(tmp_path, {"a.png": b"A", "sub/a.png": b"B"})
    table = pa.table({"n": [1, 2, 3], "photo": ["a.png", f"{tmp_path}/sub/a.png", None]})
    if kind == "csv":
        pyarrow.csv.write_csv(table, tmp_path / "list.csv")
    else:
        pyarrow.parquet.write_table(table, tmp_path / "list.parquet")
    source = open_source(str(tmp_path / f"list.{kind}"), "photo")
    items = list(source.items())
    assert [source.read(item.locator) for item in items[:2]] == [b"A", b"B"]
    assert len({item.key for item in items}) == len({item.uri for item in items}) == 3
    with pytest.raises(FileNotFoundError, match="empty in this row"):
        source.read(items[2].locator)


def test_a_single_file_may_have_any_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"portrait": b"A"})
    source = open_source(str(tmp_path / "portrait"), "uri")
    (item,) = source.items()
    assert (item.uri, item.key, source.read(item.locator)) == (f"{tmp_path}/portrait", "portrait", b"A")


def manifest_row(uri: str, status: str, style_id: str = "one", params_hash: str = "p") -> dict[str, Any]:
    return {"input_uri": uri, "style_id": style_id, "version": 1, "params_hash": params_hash, "status": status}


def test_manifest(storage: Storage) -> None:
    manifest = Manifest(storage)
    assert manifest.decided(["a"], ["p"]) == {}
    manifest.append([manifest_row("a", "done"), manifest_row("b", "failed"), manifest_row("c", "done", "two")])
    manifest.append([manifest_row("a", "done", params_hash="other")])
    one = ("one", 1, "p")
    assert manifest.decided(["a", "b", "x"], ["p"]) == {"a": {one: "done"}, "b": {one: "failed"}}
    assert manifest.decided(["a"], ["p", "other"]) == {"a": {one: "done", ("one", 1, "other"): "done"}}
    manifest.replace([manifest_row("b", "done"), manifest_row("d", "rejected")])
    assert manifest.decided(["b", "d"], ["p"]) == {"b": {one: "done"}, "d": {one: "rejected"}}
    table = manifest.table()
    assert table is not None
    assert table.to_pyarrow_table().num_rows == 5
    two = ("two", 1, "p")
    assert manifest.other_parameters([(one, None), (two, None)]) == [(one, None)]
    assert manifest.other_parameters([(("one", 1, "q"), "smiling")]) == [], "a prompt has a folder of its own"


@pytest.mark.parametrize("write", [Manifest.append, Manifest.replace])
def test_a_manifest_of_before_prompts_still_opens(tmp_path: Path, write: Any) -> None:
    manifest = Manifest(Storage.open(tmp_path))
    before = pa.schema([field for field in SCHEMA if field.name != "text"])
    write_deltalake(manifest.uri, pa.Table.from_pylist([manifest_row("a", "done")], schema=before))
    assert manifest.decided(["a"], ["p"]) == {"a": {("one", 1, "p"): "done"}}
    assert manifest.other_parameters([(("one", 1, "q"), None)]) == [(("one", 1, "q"), None)]
    write(manifest, [manifest_row("b", "done", params_hash="t") | {"text": "smiling"}])
    table = manifest.table()
    assert table is not None
    rows = {row["input_uri"]: row["text"] for row in table.to_pyarrow_table().to_pylist()}
    assert rows == {"a": None, "b": "smiling"}
    assert manifest.other_parameters([(("one", 1, "q"), "smiling")]) == [(("one", 1, "q"), "smiling")]


def test_many_small_commits_are_compacted(tmp_path: Path) -> None:
    manifest = Manifest(Storage.open(tmp_path))
    for i in range(64):
        manifest.append([manifest_row(str(i), "done")])
    manifest.compact()
    table = manifest.table()
    assert table is not None
    assert len(table.file_uris()) == 1
    assert len(manifest.decided([str(i) for i in range(64)], ["p"])) == 64


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base and six styles."""
    folder = tmp_path_factory.mktemp("tiny")
    base = make_tiny_base(folder / "base", bank=False)
    for i in range(6):
        make_tiny_style(base, folder / f"style-{i}.safetensors", f"style-{i}", seed=i)
    return folder


def stylizer_task(tiny: Path, output: Path, styles: int = 2) -> StylizerTask:
    variants = tuple(Variant(f"style-{i}", 1, str(tiny / f"style-{i}.safetensors")) for i in range(styles))
    return StylizerTask(
        str(tiny / "base"), variants, tiny / "cache", 4, 1, "cpu", FAST, TextConfig(), Storage.open(output)
    )


def work_rows(folder: Path, labels: list[str]) -> pa.Table:
    items = sorted(open_source(str(folder), "uri").items(), key=lambda item: item.key)
    rows = [{"input_uri": i.uri, "key": i.key, "locator": i.locator, "missing": labels} for i in items]
    return pa.Table.from_pylist(rows, schema=WORK)


def prepared(folder: Path, labels: list[str]) -> pa.Table:
    return Prepare(open_source(str(folder), "uri"), SIZE, "crop", 10**7)(work_rows(folder, labels))


def test_prepare_gives_a_row_for_every_input(tmp_path: Path) -> None:
    hostile = hostile_files()
    write_files(tmp_path, {name: data for name, (data, _) in hostile.items()})
    rows = prepared(tmp_path, ["style-0@1"]).to_pylist()
    expected = {relative_key(name): kind for name, (_, kind) in hostile.items()}
    assert {row["key"]: row["error_type"] for row in rows} == expected
    for row in rows:
        assert row["status"] == ("rejected" if expected[row["key"]] else None)
        assert (row["pixels"] is None) == (row["status"] is not None)
        assert row["pixels"] is None or len(row["pixels"]) == SIZE * SIZE * 3


def test_what_cannot_be_read_fails(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": encoded(picture(), "PNG")})
    work = work_rows(tmp_path, ["style-0@1"])
    (tmp_path / "a.png").unlink()
    (row,) = Prepare(FolderSource(Storage.open(tmp_path)), SIZE, "crop", 10**7)(work).to_pylist()
    assert (row["status"], row["error_type"]) == ("failed", "unreadable")
    assert "NotFound" in row["error"]


def outcomes(table: pa.Table) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {
        (row["key"], outcome["style"]): (outcome["status"], outcome["error_type"])
        for row in table.to_pylist()
        for outcome in row["outcomes"]
    }


def test_every_missing_style_is_written(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(6)})
    finished = Stylizer(stylizer_task(tiny, tmp_path / "out"))(prepared(tmp_path / "in", ["style-0@1", "style-1@1"]))
    assert len(outcomes(finished)) == 12
    assert set(outcomes(finished).values()) == {("done", None)}
    for row in finished.to_pylist():
        for outcome in row["outcomes"]:
            assert outcome["output_uri"] == f"{tmp_path}/out/images/{outcome['style']}/{row['key']}.png"
            assert decode_image(Path(outcome["output_uri"]).read_bytes()).size == (SIZE, SIZE)


def test_only_what_is_missing_is_done(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"a.png": encoded(picture(), "PNG")})
    finished = Stylizer(stylizer_task(tiny, tmp_path / "out"))(prepared(tmp_path / "in", ["style-1@1"]))
    assert list(outcomes(finished)) == [("a.png", "style-1@1")]
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["style-1@1"]


class Fussy(Stylizer):
    """Fails for input 3.png, and gives NaN for 4.png."""

    def pictures(self, label: str, rows: Any, chosen: Any, encodings: Any) -> Tensor:
        if any(row["key"] == "3.png" for row in rows):
            raise RuntimeError("not this one")
        pictures = super().pictures(label, rows, chosen, encodings).clone()
        for place, i in enumerate(chosen):
            if rows[i]["key"] == "4.png":
                pictures[place] = torch.nan
        return pictures


def test_a_failure_stays_with_its_picture(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(6)})
    result = outcomes(Fussy(stylizer_task(tiny, tmp_path / "out", styles=1))(prepared(tmp_path / "in", ["style-0@1"])))
    assert result.pop(("3.png", "style-0@1")) == ("failed", "RuntimeError")
    assert result.pop(("4.png", "style-0@1")) == ("failed", "NotFinite")
    assert len(result) == 4
    assert set(result.values()) == {("done", None)}


def test_memory_holds_few_styles(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"a.png": encoded(picture(), "PNG")})
    stylizer = Stylizer(stylizer_task(tiny, tmp_path / "out", styles=6))
    result = outcomes(stylizer(prepared(tmp_path / "in", [f"style-{i}@1" for i in range(6)])))
    assert set(result.values()) == {("done", None)}
    assert len(stylizer._styles) == STYLES_HELD


def test_a_picture_does_not_depend_on_its_batch(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(3)})
    rows = prepared(tmp_path / "in", ["style-0@1"])
    together = Stylizer(stylizer_task(tiny, tmp_path / "a", styles=1))(rows).to_pylist()
    alone = Stylizer(stylizer_task(tiny, tmp_path / "b", styles=1))(rows.slice(1, 1)).to_pylist()
    files = (Path(row["outcomes"][0]["output_uri"]) for row in (together[1], alone[0]))
    one, other = (np.asarray(decode_image(file.read_bytes())).astype(int) for file in files)
    assert np.abs(one - other).max() <= 1


def test_an_alias_is_planned_as_the_version_it_points_to(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.register("style-0", seed=5)
    case.add_pictures(1)
    catalog = StyleCatalog.open(case.root)
    catalog.set_alias("style-0@1", "prod")
    (style,) = make_plan(StylizeFlags(**case.flags | {"styles": "style-0@prod"})).variants
    assert (style.style_id, style.version) == ("style-0", 1)
    catalog.set_alias("style-0@2", "prod")
    (moved,) = make_plan(StylizeFlags(**case.flags | {"styles": "style-0@prod"})).variants
    assert (style.version, moved.version) == (1, 2)
