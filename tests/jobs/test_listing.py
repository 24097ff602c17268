"""What is listed as an input, and what is passed over: names, keys and tables as people have them."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.streaming.listing import Source, open_source
from tests.support.in_process import InProcess
from tests.support.s3_server import S3
from tests.support.stylize_case import Case

PHOTO = b"photo"


def listed(source: Source) -> tuple[dict[str, bytes | str], Counter[str]]:
    """URI → bytes, or why there are none; and what was passed over."""
    passed_over: Counter[str] = Counter()
    found: dict[str, bytes | str] = {}
    for item in source.items(passed_over):
        for text in (item.uri, item.key, item.locator):
            pa.array([text])  # can be stored
        try:
            found[item.uri] = source.read(item.locator)
        except FileNotFoundError as error:
            found[item.uri] = str(error)
    return found, passed_over


def put(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(PHOTO)


def test_names_that_are_not_utf8_are_read_and_named_by_their_bytes(tmp_path: Path) -> None:
    put(tmp_path, b"caf\xe9/\xff.png", "caf%E9.png", "plain.png")
    found, _ = listed(open_source(str(tmp_path), "uri"))
    odd = f"file://{tmp_path}/caf%E9/%FF.png"
    assert found == {odd: PHOTO, f"{tmp_path}/caf%E9.png": PHOTO, f"{tmp_path}/plain.png": PHOTO}
    assert listed(open_source(odd, "uri"))[0] == {odd: PHOTO}, "what is recorded can be given again"
    assert len({item.key for item in open_source(str(tmp_path), "uri").items()}) == 3


def test_what_is_passed_over_is_counted_by_reason(tmp_path: Path) -> None:
    put(tmp_path, "a.JPG", "photo.jpg?w=600", "back\\slash.png", "notes.txt", "a.xmp", "b.xmp", "README", ".hidden.png")
    put(tmp_path, ".cache/a.png")
    found, passed_over = listed(open_source(str(tmp_path), "uri"))
    assert {Path(uri).name for uri in found} == {"a.JPG", "photo.jpg?w=600", "back\\slash.png"}
    assert set(found.values()) == {PHOTO}
    assert passed_over == {"hidden": 2, ".xmp files": 2, ".txt files": 1, "without extension": 1}
    (tmp_path / "none").mkdir()
    put(tmp_path / "none", "a.xmp", "b")
    with pytest.raises(ConfigError, match=r"no pictures in .*, only 1 \.xmp files, 1 without extension"):
        open_source(str(tmp_path / "none"), "uri")


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    photos, other = tmp_path / "photos", tmp_path / "other"
    put(photos, "here.png")
    put(other, "there.png")
    (photos / "linked").symlink_to(other)
    (photos / "again").symlink_to(other)
    (photos / "up").symlink_to(tmp_path)
    (other / "back").symlink_to(photos)
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    found, passed_over = listed(open_source(str(photos), "uri"))
    assert sorted(found) == [f"{photos}/again/there.png", f"{photos}/here.png"]
    assert passed_over == {"links to folders that are listed anyway": 3}


def test_an_empty_object_marks_a_folder(s3: S3) -> None:
    import boto3

    prefix = s3.bucket_uri().partition(f"{s3.bucket}/")[2]
    client = boto3.client("s3")
    for name in ("marker/", "marker/0.png"):
        client.put_object(Bucket=s3.bucket, Key=f"{prefix}/{name}", Body=b"" if name.endswith("/") else PHOTO)
    uri = f"s3://{s3.bucket}/{prefix}/marker"
    found, _ = listed(open_source(uri, "uri"))
    assert found == {f"{uri}/0.png": PHOTO}


def test_a_list_of_uris_is_an_input(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "no extension")
    (tmp_path / "list.txt").write_bytes(f"a.png\r\n\n{tmp_path}/no extension\n\xe9.png\n".encode("latin-1"))
    found, _ = listed(open_source(str(tmp_path / "list.txt"), "uri"))
    assert found == {
        f"{tmp_path}/a.png": PHOTO,
        f"{tmp_path}/no extension": PHOTO,
        f"{tmp_path}/list.txt#row=3": r"row 3 is not UTF-8: b'\xe9.png'",
    }


def test_a_late_bad_byte_in_a_table_is_one_failed_row(tmp_path: Path) -> None:
    rows = [b"%06d.jpg" % n for n in range(12_000)]
    rows.insert(11_000, b"caf\xe9.jpg")
    (tmp_path / "t.csv").write_bytes(b"uri,n\n" + b"\n".join(row + b",1" for row in rows) + b"\nx,y,z\n,4\n")
    source = open_source(str(tmp_path / "t.csv"), "uri")
    items = [*source.items()]
    reasons = [item.locator for item in items if item.locator.startswith("!")]
    assert len(items) == 12_003
    assert reasons[0] == r"!row 11001 is not UTF-8: b'caf\xe9.jpg'"
    assert sorted(reasons[1:]) == ["!3 columns instead of 2", "!row 12002 is empty"]


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (pa.array(["001", "x"]), ["001", "x"]),
        (pa.array([b"001", b"x"]), ["001", "x"]),
        (pa.array(["001", "x"]).dictionary_encode(), ["001", "x"]),
        (pa.array([1, 20]), ["1", "20"]),
    ],
)
def test_columns_are_read_as_text(tmp_path: Path, column: Any, names: list[str]) -> None:
    pq.write_table(pa.table({"uri": column}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"), "uri")
    assert [item.uri for item in source.items()] == [f"{tmp_path}/{name}" for name in names]


def test_numbers_in_csv_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n,uri\n1,001\n2,1e3\n")
    source = open_source(str(tmp_path / "t.csv"), "uri")
    assert [item.uri for item in source.items()] == [f"{tmp_path}/001", f"{tmp_path}/1e3"]


@pytest.mark.parametrize("column", [pa.array([["a"]]), pa.array([{"a": 1}]), pa.array([1.5]), pa.array([True])])
def test_columns_of_other_kinds_are_named(tmp_path: Path, column: Any) -> None:
    pq.write_table(pa.table({"uri": column}), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=r"column uri of .*t\.parquet is .*, not text"):
        open_source(str(tmp_path / "t.parquet"), "uri")


def test_hostile_names_go_through_the_whole_job(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add_pictures(1)
    folder = tmp_path / "root" / "in"
    photo = (folder / "00000.png").read_bytes()
    for name in (b"caf\xe9.png", b"back\\slash.png", b"photo.jpg?w=600", b"notes.txt", b"gone\xff.png"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(photo if b"gone" not in name else b"x")
    tally = case.run(execute=InProcess.connected)
    assert case.check_consistent() == {"done": 4, "rejected": 1}
    assert tally.counts()["passed over, .txt files"] == 1
