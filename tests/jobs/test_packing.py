"""Packed outputs: shards that hold what the manifest says and nothing else, whatever is killed; spread folders."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from catalog.__main__ import main
from catalog.lineage import picture_lineage
from catalog.output_names import member_name
from catalog.pictures import picture_at, read_picture, shard_of
from catalog.store import StyleCatalog
from cluster.storage import NotFound, Storage
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.listing import open_source
from jobs.streaming.packing import Pack
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case


def case_of(tmp_path: Path, pictures: int = 6) -> Case:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=2)
    case.add_pictures(pictures)
    case.add({"bad.png": b"no picture"})
    return case


@pytest.mark.parametrize("pack", ["webdataset", "parquet"])
def test_a_packed_picture_is_found_by_its_row_and_by_its_uri(tmp_path: Path, pack: str) -> None:
    case = case_of(tmp_path)
    case.run(execute=InProcess.connected, pack=pack)
    assert case.check_consistent() == {"done": 12, "rejected": 2}
    done = [row for row in case.rows() if row["status"] == "done"]
    for row in done:
        data = read_picture(row)
        assert data == picture_at(row["output_uri"])
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (row["output_sha256"], row["output_bytes"])
    assert len({shard_of(row["output_uri"]) for row in done}) <= 4, "not a file a picture"
    with pytest.raises(NotFound):
        picture_at(f"{shard_of(done[0]['output_uri'])}#{'row=99' if pack == 'parquet' else 'other.png'}")
    folder = f"{case.root.child_uri('out')}/packed/style-0@1"
    source = open_source(folder, "image" if pack == "parquet" else None)
    assert Counter(map(source.read, (item.locator for item in source.items()))) == Counter(
        read_picture(row) for row in done if row["style_id"] == "style-0"
    ), "what is packed is an input"
    assert case.run(execute=InProcess.connected, pack=pack).now.total() == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_around_a_shard_leaves_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    case = case_of(tmp_path)
    write, written = Pack.write, []

    def killed(self: Pack, label: str, outcomes: Any) -> Any:
        if when == "before" and len(written) == 1:
            raise KeyboardInterrupt
        found = write(self, label, outcomes)
        written.append(label)
        if when == "after" and len(written) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Pack, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        case.run(execute=InProcess.connected, pack="webdataset")
    monkeypatch.setattr(Pack, "write", write)
    kept = {row["output_uri"] for row in case.rows() if row["output_uri"]}
    case.run(execute=InProcess.connected, pack="webdataset")
    assert case.check_consistent() == {"done": 12, "rejected": 2}
    assert kept < {row["output_uri"] for row in case.rows()}, "what was recorded stays"


def test_a_shard_that_nobody_recorded_is_gone_when_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(tmp_path, 2)
    write = Pack.write

    def twice(self: Pack, label: str, outcomes: Any) -> Any:
        write(self, label, outcomes)  # of a process that died before it could tell
        return write(self, label, outcomes)

    monkeypatch.setattr(Pack, "write", twice)
    case.run(execute=InProcess.connected, pack="parquet")
    assert case.check_consistent() == {"done": 4, "rejected": 2}


def test_what_a_packed_picture_was_made_from_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = case_of(tmp_path, 1)
    case.run(execute=InProcess.connected, pack="webdataset", styles="style-0", scores=True)
    (row,) = (row for row in case.rows() if row["status"] == "done")
    found = picture_lineage(StyleCatalog.open(case.root), row["output_uri"], "again")
    assert found["photograph"]["input_uri"] == row["input_uri"]
    target = tmp_path / "a.png"
    assert main(["picture", row["output_uri"], str(target), "--storage", case.root.uri]) == 0
    assert target.read_bytes() == read_picture(row)
    assert "bytes" in capsys.readouterr().out


def test_parquet_shards_hold_structs_and_say_what_they_are_of(tmp_path: Path) -> None:
    case = case_of(tmp_path, 2)
    case.run(execute=InProcess.connected, pack="parquet", styles="style-0")
    uri = min(shard_of(row["output_uri"]) for row in case.rows() if row["output_uri"])
    table = pq.read_table(uri)
    assert table.column_names[:4] == ["key", "image", "input_uri", "input_sha256"]
    assert table["image"][0].as_py()["path"] == f"{table['key'][0]}.png"


def test_member_names_are_samples_of_their_own() -> None:
    assert member_name("a.b/c.d.jpg") == "a.b/c%2Ed%2Ejpg"


def test_pictures_can_be_spread_over_folders(tmp_path: Path) -> None:
    case = case_of(tmp_path, 3)
    case.run(execute=InProcess.connected, styles="style-0")
    case.run(execute=InProcess.connected, output_folders="hashed")
    assert case.check_consistent() == {"done": 6, "rejected": 2}
    images = case.root.child("out", "images")
    assert {name.count("/") for name in images.list_files("style-0@1")} == {0}, "what is there stays"
    assert {name.count("/") for name in images.list_files("style-1@1")} == {2}
    with pytest.raises(ValueError, match="output_folders"):
        resolve(StylizeFlags(**case.flags, pack="parquet", output_folders="hashed"))
