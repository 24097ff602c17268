"""The parts of the stylize job without a cluster: keys, inputs, manifest, the undecorated actor."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from deltalake import write_deltalake
from hypothesis import assume, given
from hypothesis import strategies as st

from catalog.manifest import SCHEMA, Manifest
from catalog.output_names import relative_key, uri_key
from catalog.store import StyleCatalog
from cluster.storage import Storage, StorageRefused, StorageUnavailable
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.decoding import Decode
from jobs.streaming.encoding import Batch, Encode
from jobs.streaming.failures import RunStopped
from jobs.streaming.ledger import LocalLedger
from jobs.streaming.listing import FolderSource, Item, open_source
from jobs.streaming.planning import Plan, Tally, chunk_inputs, chunks
from jobs.streaming.rows import CHUNK, Row, one_row
from jobs.streaming.stylizing import STYLES_HELD, Stylize, Stylizer, StylizerTask
from jobs.streaming.variants import Variant
from jobs.streaming.worker import Failed
from jobs.streaming.writing import Write
from osasis.image import decode_image
from osasis.settings import PictureConfig, StylizeConfig, TextConfig
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
    with pytest.raises(FileNotFoundError, match="row 3 is empty"):
        source.read(items[2].locator)


def test_what_decoding_mended_is_noted(tmp_path: Path) -> None:
    whole = encoded(picture(), "PNG")
    write_files(tmp_path, {"cut.png": whole[:-8], "whole.png": whole})
    decode = Decode(FolderSource(Storage.open(tmp_path)), SIZE, "crop", 10**7)
    cut, uncut = (
        decode.picture({"input_uri": name, "key": name, "missing": [], "locator": str(tmp_path / name)})
        for name in ("cut.png", "whole.png")
    )
    assert cut["notes"] == "PNG: the end marker (IEND) is missing"
    assert uncut["notes"] is None
    assert cut["pixels"] == uncut["pixels"]


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
    two = ("two", 1, "p")
    assert manifest.other_parameters([(one, None), (two, None)]) == [(one, None)]
    assert manifest.other_parameters([(("one", 1, "q"), "smiling")]) == [], "a prompt has a folder of its own"


def test_a_manifest_of_before_prompts_and_notes_still_opens(tmp_path: Path) -> None:
    manifest = Manifest(Storage.open(tmp_path))
    before = pa.schema([field for field in SCHEMA if field.name not in ("text", "notes")])
    write_deltalake(manifest.uri, pa.Table.from_pylist([manifest_row("a", "done")], schema=before))
    assert manifest.decided(["a"], ["p"]) == {"a": {("one", 1, "p"): "done"}}
    assert manifest.other_parameters([(("one", 1, "q"), None)]) == [(("one", 1, "q"), None)]
    manifest.append([manifest_row("b", "done", params_hash="t") | {"text": "smiling"}])
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


def stylizer_task(tiny: Path, output: Path, styles: int = 2, **settings: Any) -> StylizerTask:
    variants = tuple(Variant(f"style-{i}", 1, str(tiny / f"style-{i}.safetensors")) for i in range(styles))
    encode = Encode(str(tiny / "base"), tiny / "cache", batch_size=4, threads=1, device="cpu")
    source = FolderSource(Storage.open(output.parent / "in"))
    write = Write(Storage.open(output), source, 10**7, PictureConfig(**settings))
    return StylizerTask(encode, variants, Stylize(FAST, TextConfig()), write)


def chunk_of(folder: Path, labels: list[str]) -> pa.Table:
    items = sorted(open_source(str(folder), "uri").items(), key=lambda item: item.key)
    rows = [{"input_uri": i.uri, "key": i.key, "locator": i.locator, "missing": labels} for i in items]
    return one_row({"chunk": 0, "inputs": rows}, CHUNK)


def decoded(folder: Path, labels: list[str]) -> pa.Table:
    return Decode(open_source(str(folder), "uri"), SIZE, "crop", 10**7)(chunk_of(folder, labels), LocalLedger())


def test_decode_gives_a_row_for_every_input(tmp_path: Path) -> None:
    hostile = hostile_files()
    write_files(tmp_path, {name: data for name, (data, _) in hostile.items()})
    (chunk,) = decoded(tmp_path, ["style-0@1"]).to_pylist()
    expected = {relative_key(name): kind for name, (_, kind) in hostile.items()}
    assert {row["key"]: row["error_type"] for row in chunk["inputs"]} == expected
    for row in chunk["inputs"]:
        assert row["status"] == ("rejected" if expected[row["key"]] else None)
        assert (row["pixels"] is None) == (row["status"] is not None)
        assert row["pixels"] is None or len(row["pixels"]) == SIZE * SIZE * 3


def test_what_cannot_be_read_fails(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": encoded(picture(), "PNG")})
    work = chunk_of(tmp_path, ["style-0@1"])
    (tmp_path / "a.png").unlink()
    (chunk,) = Decode(FolderSource(Storage.open(tmp_path)), SIZE, "crop", 10**7)(work, LocalLedger()).to_pylist()
    (row,) = chunk["inputs"]
    assert (row["status"], row["error_type"]) == ("failed", "unreadable")
    assert "NotFound" in row["error"]


@pytest.mark.parametrize("refused", [True, False])
def test_storage_that_serves_nobody_stops_the_run_and_one_that_refuses_an_input_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    write_files(tmp_path, {"a.png": encoded(picture(), "PNG")})
    work = chunk_of(tmp_path, ["style-0@1"])
    error = StorageRefused("a.png: access denied") if refused else StorageUnavailable("a.png: credentials have expired")

    def read(source: FolderSource, locator: str) -> bytes:
        raise error

    monkeypatch.setattr(FolderSource, "read", read)
    decode = Decode(FolderSource(Storage.open(tmp_path)), SIZE, "crop", 10**7)
    if refused:
        (chunk,) = decode(work, LocalLedger()).to_pylist()
        assert [(row["status"], row["error_type"]) for row in chunk["inputs"]] == [("failed", "unreadable")]
    else:
        with pytest.raises(RunStopped, match=r"an input cannot be read: a\.png: credentials have expired"):
            decode(work, LocalLedger())


def stylized(stylizer: Stylizer, chunk: pa.Table) -> list[Row]:
    return [outcome for table in stylizer(chunk) for row in table.to_pylist() for outcome in row["outcomes"]]


def verdicts(outcomes: list[Row]) -> dict[tuple[str, str], tuple[str, str | None]]:
    found = {(o["key"], o["variant"]): (o["status"], o["error_type"]) for o in outcomes}
    assert len(found) == len(outcomes)
    return found


def test_every_missing_style_is_written(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(6)})
    stylizer = Stylizer(stylizer_task(tiny, tmp_path / "out"), LocalLedger())
    outcomes = stylized(stylizer, decoded(tmp_path / "in", ["style-0@1", "style-1@1"]))
    assert len(verdicts(outcomes)) == 12
    assert set(verdicts(outcomes).values()) == {("done", None)}
    for outcome in outcomes:
        assert outcome["output_uri"] == f"{tmp_path}/out/images/{outcome['variant']}/{outcome['key']}.png"
        assert decode_image(Path(outcome["output_uri"]).read_bytes()).size == (SIZE, SIZE)


def test_only_what_is_missing_is_done(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"a.png": encoded(picture(), "PNG")})
    stylizer = Stylizer(stylizer_task(tiny, tmp_path / "out"), LocalLedger())
    assert list(verdicts(stylized(stylizer, decoded(tmp_path / "in", ["style-1@1"])))) == [("a.png", "style-1@1")]
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["style-1@1"]


class Fussy(Stylizer):
    """Fails for input 3.png, and gives NaN for 4.png."""

    def results(self, variant: Variant, batch: Batch) -> list[Any]:
        if any(row["key"] == "3.png" for row in batch.rows):
            raise RuntimeError("not this one")
        results = super().results(variant, batch)
        unusable = Failed("NotFinite", "NaN")
        return [unusable if row["key"] == "4.png" else r for row, r in zip(batch.rows, results, strict=True)]


def test_a_failure_stays_with_its_picture(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(6)})
    fussy = Fussy(stylizer_task(tiny, tmp_path / "out", styles=1), LocalLedger())
    result = verdicts(stylized(fussy, decoded(tmp_path / "in", ["style-0@1"])))
    assert result.pop(("3.png", "style-0@1")) == ("failed", "RuntimeError")
    assert result.pop(("4.png", "style-0@1")) == ("failed", "NotFinite")
    assert len(result) == 4
    assert set(result.values()) == {("done", None)}


def test_each_style_is_loaded_once_a_chunk(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(9)})
    stylizer = Stylizer(stylizer_task(tiny, tmp_path / "out", styles=6), LocalLedger())
    outcomes = stylized(stylizer, decoded(tmp_path / "in", [f"style-{i}@1" for i in range(6)]))
    assert set(verdicts(outcomes).values()) == {("done", None)}
    assert stylizer.styles.loads == 6, "for three batches"
    assert len(stylizer.styles) == STYLES_HELD


class SlowStorage(Stylizer):
    """Stores pictures of the first batch when the third is computed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batches, self.third = 0, threading.Event()

    def results(self, variant: Variant, batch: Batch) -> Any:
        self.batches += 1
        if self.batches == 3:
            self.third.set()
        return super().results(variant, batch)

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        assert self.third.wait(timeout=60), "the worker waited for its storage"
        return super().keep(variant, row, result)


def test_a_worker_computes_while_its_pictures_are_stored(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(9)})
    slow = SlowStorage(stylizer_task(tiny, tmp_path / "out", styles=1), LocalLedger())
    assert set(verdicts(stylized(slow, decoded(tmp_path / "in", ["style-0@1"]))).values()) == {("done", None)}


class Deadly(Decode):
    """Kills its process for one input."""

    def picture(self, item: Row) -> Row:
        if item["key"] == "1.png":
            raise KeyboardInterrupt("dies")
        return super().picture(item)


def test_an_input_that_kills_the_decoder_is_found(tmp_path: Path) -> None:
    write_files(tmp_path, {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(3)})
    decode, ledger = Deadly(open_source(str(tmp_path), "uri"), SIZE, "crop", 10**7), LocalLedger()
    work = chunk_of(tmp_path, ["style-0@1"])
    for _ in range(3):  # twice in company, once alone
        with pytest.raises(KeyboardInterrupt):
            decode(work, ledger)
    (chunk,) = decode(work, ledger).to_pylist()
    assert [row["error_type"] for row in chunk["inputs"]] == [None, "worker-died", None]
    assert ledger.begin("decode/0") == 0


def test_a_picture_does_not_depend_on_its_batch(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{i}.png": encoded(picture(seed=i), "PNG") for i in range(3)})
    chunk = decoded(tmp_path / "in", ["style-0@1"])
    (row,) = chunk.to_pylist()
    alone = one_row(row | {"inputs": row["inputs"][1:2]}, chunk.schema)
    files = []
    for name, part in (("a", chunk), ("b", alone)):
        stylizer = Stylizer(stylizer_task(tiny, tmp_path / name, styles=1), LocalLedger())
        (outcome,) = [o for o in stylized(stylizer, part) if o["key"] == "1.png"]
        files.append(np.asarray(decode_image(Path(outcome["output_uri"]).read_bytes())).astype(int))
    assert np.abs(files[0] - files[1]).max() <= 1


def items_of(*uris: str) -> list[Item]:
    return [Item(uri, uri, uri) for uri in uris]


def test_planning_leaves_what_is_decided(tmp_path: Path) -> None:
    manifest = Manifest(Storage.open(tmp_path))
    variants = (Variant("one", 1, params_hash="p"), Variant("two", 1, params_hash="p"))
    rows = [manifest_row("a", "done"), manifest_row("a", "done", "two"), manifest_row("b", "failed")]
    manifest.append([*rows, manifest_row("c", "done", params_hash="other"), manifest_row("d", "done", "three")])
    manifest.append([manifest_row("e", "failed"), manifest_row("e", "done")])
    inputs = items_of("a", "b", "c", "d", "e", "a")

    def planned(retry_failed: bool) -> tuple[dict[str, list[str]], Tally]:
        tally = Tally()
        work = Plan(manifest, variants, retry_failed)(inputs, tally, unique=False)
        return {row["input_uri"]: row["missing"] for row in work}, tally

    work, tally = planned(retry_failed=False)
    assert work == {"b": ["two@1"], "c": ["one@1", "two@1"], "d": ["one@1", "two@1"], "e": ["two@1"]}
    assert (tally.inputs, tally.duplicates, tally.before) == (6, 1, {"done": 3, "failed": 1})
    work, tally = planned(retry_failed=True)
    assert work["b"] == ["one@1", "two@1"]
    assert work["e"] == ["two@1"], "its newer row is done"
    assert tally.before == {"done": 3}


def test_rows_that_gave_way_are_removed(tmp_path: Path) -> None:
    manifest = Manifest(Storage.open(tmp_path))
    manifest.append([manifest_row(uri, "failed") | {"run_id": "1"} for uri in "abc"] + [manifest_row("d", "done")])
    manifest.append([manifest_row("a", "done") | {"run_id": "2"}, manifest_row("b", "failed") | {"run_id": "2"}])
    manifest.settle(["p"])
    rows = {row["input_uri"]: (row["status"], row["run_id"]) for row in manifest.rows()}
    assert rows == {"a": ("done", "2"), "b": ("failed", "2"), "c": ("failed", "1"), "d": ("done", None)}
    assert len(manifest.rows()) == 4


def test_chunks_keep_every_worker_busy() -> None:
    work = [{"input_uri": str(i)} for i in range(10)]
    assert [len(chunk) for chunk in chunks(work, most=8, workers=2)] == [3, 3, 3, 1]
    assert [len(chunk) for chunk in chunks(work, most=2, workers=1)] == [2, 2, 2, 2, 1, 1]
    assert chunk_inputs(styles=4, held=4, batch_size=8, image_size=64) == 16
    assert chunk_inputs(styles=5, held=4, batch_size=8, image_size=64) == 512
    assert chunk_inputs(styles=5, held=4, batch_size=8, image_size=1024) == 21


def test_an_alias_is_planned_as_the_version_it_points_to(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.register("style-0", seed=5)
    case.add_pictures(1)
    catalog = StyleCatalog.open(case.root)
    catalog.set_alias("style-0@1", "prod")
    (style,) = resolve(StylizeFlags(**case.flags | {"styles": "style-0@prod"})).variants
    assert (style.style_id, style.version) == ("style-0", 1)
    catalog.set_alias("style-0@2", "prod")
    (moved,) = resolve(StylizeFlags(**case.flags | {"styles": "style-0@prod"})).variants
    assert (style.version, moved.version) == (1, 2)
