"""Inputs as people have them: Parquet of pictures, WebDataset shards, lists, inventories; and whole runs over them."""

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.output_names import relative_key
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.streaming.inputs import parquet
from jobs.streaming.listing import Source, open_source
from jobs.streaming.planning import Seen
from tests.support.hostile import encoded, picture
from tests.support.in_process import InProcess
from tests.support.s3_server import S3
from tests.support.stylize_case import Case


def told(source: Source) -> tuple[dict[str, bytes | str], Counter[str]]:
    """Key → bytes, or why there are none; and what was passed over."""
    passed_over: Counter[str] = Counter()
    found: dict[str, bytes | str] = {}
    for item in source.items(passed_over):
        assert item.key not in found
        try:
            found[item.key] = source.read(item.locator)
        except Exception as error:
            found[item.key] = str(error)
    return found, passed_over


def tar_bytes(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def pictures_table(values: list[Any], **columns: Any) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(values, kind), **columns})


def test_a_folder_of_parquet_files_as_hugging_face_writes_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.png").write_bytes(b"by path")
    (tmp_path / "README.md").write_text("about")
    first = [{"bytes": b"\xffA%d" % i, "path": f"{i}.jpg"} for i in range(5)]
    rest = [
        {"bytes": None, "path": "photo.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"\xffB", "path": None},
    ]
    pq.write_table(pictures_table(first, label=range(5)), tmp_path / "data" / "train-0.parquet", row_group_size=2)
    pq.write_table(pictures_table(rest), tmp_path / "data" / "train-1.parquet")
    source = open_source(str(tmp_path / "data"), kind="parquet")
    found, _ = told(source)
    assert found == {f"train-0/{i + 1:09d}": row["bytes"] for i, row in enumerate(first)} | {
        "train-1/000000001": b"by path",
        "train-1/000000002": "row 2 is empty",
        "train-1/000000003": "row 3 is empty",
        "train-1/000000004": b"\xffB",
    }
    with pytest.raises(ConfigError, match="no column other, only image, label"):
        open_source(str(tmp_path / "data"), "other", "parquet")
    (tmp_path / "data" / "photo.png").unlink()
    assert next(open_source(str(tmp_path)).items()).key == "data/train-0/000000001", "found by itself"
    uri = f"{tmp_path}/data/train-0.parquet#row=3"
    (again,) = open_source(uri).items()
    assert again.uri == uri


def test_parquet_columns_of_bytes_are_pictures_unless_they_are_text(tmp_path: Path) -> None:
    photo = encoded(picture(24, 20, seed=1), "PNG")
    pq.write_table(pa.table({"jpg": pa.array([photo, None], pa.large_binary())}), tmp_path / "a.parquet")
    found, _ = told(open_source(str(tmp_path / "a.parquet"), "jpg"))
    assert found == {"a/000000001": photo, "a/000000002": "row 2 is empty"}


def test_an_odd_file_of_a_parquet_folder_is_one_failed_row(tmp_path: Path) -> None:
    pq.write_table(pictures_table([{"bytes": b"\xffA", "path": None}]), tmp_path / "a.parquet")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"no table")
    found, _ = told(open_source(str(tmp_path)))
    assert found.pop("a/000000001") == b"\xffA"
    assert sorted(str(reason).split(": ")[0] for reason in found.values()) == [
        f"{tmp_path}/c.parquet is not a readable Parquet file",
        "the file has no column image",
    ]


def test_row_groups_too_large_for_memory_are_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 2000)
    rows = [{"bytes": bytes([255, i]) + b"x" * 600, "path": None} for i in range(2)]
    pq.write_table(pictures_table(rows), tmp_path / "a.parquet", use_dictionary=False)
    with pytest.raises(ConfigError, match="row group 0 holds"):
        open_source(str(tmp_path))
    pq.write_table(pictures_table(rows), tmp_path / "a.parquet", row_group_size=1)
    assert len([*open_source(str(tmp_path)).items()]) == 2


def test_shards_are_listed_by_their_headers_and_read_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"./{i:04d}.{suffix}": bytes([i]) * 40_000 for i in range(3) for suffix in ("jpg", "json")}
    long = "folder/" + "n" * 150 + ".png"
    (tmp_path / "a.tar").write_bytes(tar_bytes(members | {long: b"long", "0000.seg.png": b"mask", "._0001.jpg": b"?"}))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.tar").write_bytes(tar_bytes({"x.png": b"1", "y.webp": b"2", "x.jpg": b"3"}))
    asked = []
    read_range = Storage.read_range
    monkeypatch.setattr(
        Storage,
        "read_range",
        lambda self, start, end, **how: asked.append(end - start) or read_range(self, start, end, **how),  # type: ignore[func-returns-value]
    )
    source = open_source(str(tmp_path))
    items = [*source.items()]
    assert max(asked) <= 16 << 10, "content is skipped"
    found, passed_over = told(source)
    assert found == {
        **{f"a/{i:04d}": bytes([i]) * 40_000 for i in range(3)},
        f"a/folder/{'n' * 150}": b"long",
        "a/0000.seg.png": b"mask",
        "sub/b/x": b"1",
        "sub/b/y": b"2",
        "sub/b/x.jpg": b"3",
    }
    assert passed_over == {".json members of shards": 3, "hidden": 1}
    assert items[0].uri == f"{tmp_path}/a.tar#0000.jpg"
    (again,) = open_source(items[0].uri).items()
    assert again == items[0]
    assert set(told(open_source(str(tmp_path), "jpg"))[0]) == {"a/0000", "a/0001", "a/0002", "sub/b/x"}


def test_a_damaged_shard_costs_what_is_behind_the_damage(tmp_path: Path) -> None:
    whole = tar_bytes({f"{i}.jpg": bytes([i]) * 2000 for i in range(4)})
    (tmp_path / "cut.tar").write_bytes(whole[:4500])
    (tmp_path / "none.tar").write_bytes(b"no tar" * 400)
    found, _ = told(open_source(str(tmp_path)))
    assert found.pop("cut/0") == bytes([0]) * 2000
    assert "ends" in str(found.pop("cut/1"))
    reasons = sorted(map(str, found.values()))
    assert [reason.partition(":")[0] for reason in reasons] == ["no tar file", "the shard is damaged after 2 members"]
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(ConfigError, match="compressed"):
        open_source(str(tmp_path / "a.tar.gz"))


def test_json_lines_name_pictures(tmp_path: Path) -> None:
    lines = [{"file_name": "a.png"}, {"other": 1}, {"file_name": None}, {"file_name": ["a"]}, {"file_name": 7}]
    text = (
        "\n".join(json.dumps(line) for line in lines) + "\nnot json\n[1]\n" + '{"file_name": "' + "x" * (2 << 20) + '"}'
    )
    (tmp_path / "metadata.jsonl").write_text(text)
    (tmp_path / "a.png").write_bytes(b"A")
    source = open_source(str(tmp_path / "metadata.jsonl"), "file_name")
    items = [*source.items()]
    assert [item.uri.rpartition("/")[2] for item in items] == [
        "a.png", "metadata.jsonl#row=2", "metadata.jsonl#row=3", "metadata.jsonl#row=4", "7",
        "metadata.jsonl#row=6", "metadata.jsonl#row=7", "metadata.jsonl#row=8",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no column uri, only file_name"):
        open_source(str(tmp_path / "metadata.jsonl"))


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_an_s3_inventory_is_a_listing(s3: S3, kind: str) -> None:
    place = Storage.open(s3.bucket_uri())
    prefix = place.uri.removeprefix(f"s3://{s3.bucket}/")
    names = ["photos/a b+c.jpg", "photos/größe.png", "photos/notes.txt", "photos/old.jpg"]
    place.write_bytes(names[0], b"A")
    keys = [f"{prefix}/{name}" for name in names]
    latest = [True, True, True, False]
    if kind == "CSV":
        from urllib.parse import quote_plus

        rows = "".join(
            f'"bucket","{quote_plus(key)}","{str(new).lower()}"\n' for key, new in zip(keys, latest, strict=True)
        )
        data, schema = gzip.compress(rows.encode()), "Bucket, Key, IsLatest"
    else:
        target = io.BytesIO()
        pq.write_table(pa.table({"bucket": ["b"] * 4, "key": keys, "is_latest": latest}), target)
        data, schema = target.getvalue(), "message s3.inventory {}"
    place.write_bytes("inventory/data/0", data)
    manifest = {
        "sourceBucket": s3.bucket, "destinationBucket": f"arn:aws:s3:::{s3.bucket}", "fileFormat": kind,
        "fileSchema": schema, "files": [{"key": f"{prefix}/inventory/data/0", "size": len(data)}],
    }  # fmt: skip
    place.write_bytes("inventory/manifest.json", json.dumps(manifest).encode())
    source = open_source(place.child_uri("inventory/manifest.json"))
    passed_over: Counter[str] = Counter()
    items = [*source.items(passed_over)]
    assert [item.uri for item in items] == [f"s3://{s3.bucket}/{key}" for key in keys[:2]]
    assert source.read(items[0].locator) == b"A"
    assert passed_over == {".txt files": 1, "former versions": 1}
    place.write_bytes("inventory/manifest.json", json.dumps(manifest | {"fileFormat": "ORC"}).encode())
    with pytest.raises(ConfigError, match="an inventory in ORC"):
        open_source(place.child_uri("inventory/manifest.json"))


def test_inputs_met_before_are_known_without_being_held_in_memory() -> None:
    import numpy as np

    seen = Seen()
    first = np.array([1, 2, 1, 2**64 - 1], np.uint64)
    assert seen.new(first, np.array([5, 5, 5, 5], np.uint64)) == [0, 1, 3]
    assert seen.new(first, np.array([6, 5, 6, 5], np.uint64)) == [0]


def test_shards_and_parquet_go_through_the_whole_job_and_again(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=2)
    photos = [encoded(picture(24, 20, seed=i), "PNG") for i in range(4)]
    whole = {f"{i}.png": photo for i, photo in enumerate(photos)}
    case.add({"a.tar": tar_bytes(whole | {"bad.png": b"no picture"}), "b.tar": tar_bytes(whole)[:-1500]})
    case.run(execute=InProcess.connected, limit=3)
    tally = case.run(execute=InProcess.connected)
    counts = case.check_consistent()
    assert counts["done"] + counts["rejected"] + counts["failed"] == 2 * tally.inputs
    assert (counts["rejected"], tally.before.total()) == (2, 6)
    assert Storage.open(tmp_path / "root/out/images/style-0@1").exists("a/0.png")
    table = pictures_table([*({"bytes": photo, "path": None} for photo in photos), None])
    case.root.write_bytes("tables/part.parquet", b"")
    pq.write_table(table, f"{tmp_path}/root/tables/part.parquet", row_group_size=2)
    output = case.root.child_uri("out2")
    tally = case.run(execute=InProcess.connected, input=case.root.child_uri("tables"), output=output)
    assert tally.now == {"done": 8, "failed": 2}
    assert relative_key("part/000000005") == "part/000000005"
