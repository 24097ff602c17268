"""What becomes of files: freed, compared, downloaded, moved between catalogs; the same on every kind of storage."""

import hashlib
import io
import json
import os
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog import gc
from catalog.__main__ import main
from catalog.errors import CatalogUsageError, CheckpointMismatch, UnknownStyle
from catalog.register import check_checkpoint
from catalog.schema import NewStyle, StyleVersion
from catalog.store import StyleCatalog
from catalog.verify import Finding, verify
from cluster.storage import Storage
from tests.support.styles import names, new_style, trained_style

NOW, LATER = timedelta(0), datetime.now(UTC) + timedelta(days=40)


@pytest.fixture
def catalog(storage: Storage) -> StyleCatalog:
    """monet@1, monet@2 and hokusai@1, and nothing else below checkpoints."""
    catalog = StyleCatalog.open(storage)
    for style_id, content in (("monet", b"1" * 1000), ("monet", b"2" * 1000), ("hokusai", b"3" * 1000)):
        catalog.register(trained_style(storage, style_id, content))
    return catalog


def findings(catalog: StyleCatalog, **options: Any) -> list[tuple[str, str]]:
    return [(item.kind, item.style) for item in verify(catalog, **options) if isinstance(item, Finding)]


def test_gc_frees_what_was_deleted_and_nothing_else(catalog: StyleCatalog) -> None:
    storage = catalog.storage
    catalog.delete("monet@1")
    assert gc.collect(catalog, timedelta(days=30)).freed_bytes == 0  # too young
    before = storage.list_files("checkpoints")
    planned = gc.collect(catalog, NOW, dry_run=True)
    assert storage.list_files("checkpoints") == before
    assert catalog.restore("monet@1") == [("monet", 1)]  # a dry run has said nothing
    catalog.delete("monet@1")

    report = gc.collect(catalog, NOW)
    assert report == planned
    assert (report.versions, report.files, report.orphans) == (["monet@1"], 6, [])
    assert report.bytes_before - report.bytes_after == report.freed_bytes > 1000
    assert len(storage.list_files("checkpoints")) == len(before) - 6
    assert [row.status for row in catalog.list(deleted=True)] == ["ready", "purged", "ready"]
    with pytest.raises(UnknownStyle, match="it is purged"):
        catalog.resolve("monet@1")
    with pytest.raises(CatalogUsageError, match="gc has freed"):
        catalog.restore("monet@1")
    assert findings(catalog, now=LATER) == []
    assert gc.collect(catalog, NOW).files == 0


def test_a_freed_style_can_be_trained_again_and_is_another_version(catalog: StyleCatalog) -> None:
    catalog.delete("monet@1")
    gc.collect(catalog, NOW)
    again = catalog.register(trained_style(catalog.storage, "monet", b"1" * 1000))
    assert str(again) == "monet@3"
    assert gc.collect(catalog, NOW).files == 0
    assert findings(catalog, now=LATER) == []


def test_gc_goes_on_where_it_was_stopped(catalog: StyleCatalog) -> None:
    catalog.delete("monet@1,hokusai")
    catalog._changes().purge([("monet", 1)], "deleted", "purging")
    catalog.storage.delete(f"checkpoints/monet/{hashlib.sha256(b'1' * 1000).hexdigest()[:12]}/style.safetensors")
    with pytest.raises(CatalogUsageError, match="gc has freed"):
        catalog.restore("monet@1")
    with pytest.raises(CheckpointMismatch, match="run gc to its end"):
        catalog.register(trained_style(catalog.storage, "monet", b"1" * 1000))
    assert gc.collect(catalog, timedelta(days=1)).versions == ["monet@1"]  # hokusai was deleted too lately
    assert [row.status for row in catalog.list(deleted=True)] == ["deleted", "purged", "ready"]


def test_files_that_others_need_or_that_stand_elsewhere_stay(catalog: StyleCatalog, tmp_path: Path) -> None:
    storage = catalog.storage
    shared = trained_style(storage, "monet", b"1" * 1000).model_copy(update={"style_id": "copy"})
    catalog.register(shared)
    outside = Storage.open(tmp_path / "outside")
    catalog.register(new_style(outside, "guest", b"elsewhere"))
    catalog.delete("monet@1,guest")
    report = gc.collect(catalog, NOW)
    assert report.versions == ["guest@1", "monet@1"]
    assert report.files == 0
    assert [uri for uri in report.elsewhere if uri.startswith(outside.uri)]
    assert Storage.open(shared.checkpoint_uri).exists()
    assert outside.list_files() != []


def test_orphans_are_found_when_they_are_old(catalog: StyleCatalog) -> None:
    storage = catalog.storage
    trained_style(storage, "lost", b"never registered")
    storage.write_bytes("checkpoints/stray.txt", b"?")
    assert findings(catalog) == []
    assert gc.collect(catalog, NOW).orphans == []  # young: they may be about to be registered
    assert findings(catalog, now=LATER) == [("orphan", "")] * 2
    planned = gc.collect(catalog, NOW, dry_run=True, now=LATER)
    assert (len(planned.orphans), planned.files) == (2, 6)
    report = gc.collect(catalog, NOW, now=LATER)
    assert report == planned
    assert report.bytes_before - report.bytes_after == report.freed_bytes
    assert findings(catalog, now=LATER) == []
    assert names(catalog.resolve("all")) == ["hokusai@1", "monet@2"]


def test_an_unfinished_training_is_freed_when_it_is_old(catalog: StyleCatalog) -> None:
    storage = catalog.storage
    before = gc.collect(catalog, NOW, dry_run=True).bytes_before
    storage.write_bytes("train/lost-0a/state-00000004.pt", b"weights")
    storage.write_bytes("leases/train/lost-0a/0000000001.json", b"{}")
    assert findings(catalog) == []
    (found, left) = [found for found in verify(catalog, now=LATER) if isinstance(found, Finding)]
    assert found.uri.endswith("leases/train/lost-0a")
    assert left.message == "states of a training that was not ended; gc frees it"
    report = gc.collect(catalog, NOW, now=LATER)
    assert report.orphans == ["leases/train/lost-0a", "train/lost-0a"]
    assert (report.files, report.bytes_before - before, report.bytes_after) == (2, 9, before)


def test_an_old_folder_that_is_registered_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    late = trained_style(catalog.storage, "late", b"trained long ago")
    for path in tmp_path.rglob("*"):
        os.utime(path, times=(0, 0))
    listed = gc.orphans

    def list_then_register(*args: Any) -> list[str]:
        monkeypatch.setattr(gc, "orphans", listed)
        found = listed(*args)
        assert len(found) == 1

        def collect_then_check(new: NewStyle) -> None:
            assert gc.collect(catalog, NOW).files == 0  # another gc, while the registration runs
            check_checkpoint(new)

        monkeypatch.setattr("catalog.register.check_checkpoint", collect_then_check)
        assert str(catalog.register(late)) == "late@1"
        return found

    monkeypatch.setattr(gc, "orphans", list_then_register)
    assert gc.collect(catalog, NOW).files == 0
    assert findings(catalog, now=LATER) == []


def test_verify_finds_what_is_damaged_and_missing(catalog: StyleCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(catalog) == []
    files = {row.version: row for row in catalog.list() if row.style_id == "monet"}
    Storage.open(files[1].checkpoint_uri).write_bytes("", b"x" * 1000)
    Storage.open(files[2].checkpoint_uri).delete()
    Storage.open(str(files[2].preview_uri)).delete()
    Storage.open(catalog.show("hokusai").checkpoint_uri).write_bytes("", b"short")
    expected = [("damaged", "hokusai@1"), ("damaged", "monet@1"), ("missing", "monet@2"), ("missing", "monet@2")]
    assert findings(catalog) == expected
    assert findings(catalog, quick=True) == [expected[0], *expected[2:]]
    assert findings(catalog, pairs=[("monet", 1)]) == [("damaged", "monet@1")]
    assert main(["verify", "--storage", catalog.storage.uri, "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["versions"] == 3
    assert len(said["findings"]) == 4
    assert main(["verify", "monet@2", "--storage", catalog.storage.uri]) == 3
    with pytest.raises(CheckpointMismatch):
        catalog.pull("monet@1", Path("unused-folder"))
    assert not Path("unused-folder").exists()


def test_a_version_is_pulled_whole(catalog: StyleCatalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["pull", "monet@1", str(tmp_path / "out"), "--storage", catalog.storage.uri]) == 0
    folder = tmp_path / "out" / "monet@1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "photo.png", "preview.png", "reference.png", "style.json", "style.safetensors",
    ]  # fmt: skip
    assert (folder / "style.safetensors").read_bytes() == b"1" * 1000
    assert StyleVersion.model_validate_json((folder / "style.json").read_bytes()) == catalog.show("monet@1")
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)


@pytest.mark.parametrize("form", ["bundle", "bundle.tar"])
def test_styles_move_between_catalogs(
    catalog: StyleCatalog, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog.tag("monet@2", add=["later"])
    catalog.add_note("monet@2", "said later")
    out, uri = str(tmp_path / form), catalog.storage.uri
    assert main(["export", "monet@1,monet@2", out, "--storage", uri]) == 0
    assert main(["export", "monet@1", out, "--storage", uri]) == 2
    assert "something is there already" in capsys.readouterr().err

    other = StyleCatalog.open(Storage.open(tmp_path / "other"))
    assert main(["import", out, "--storage", other.storage.uri]) == 0
    assert main(["import", out, "--storage", other.storage.uri]) == 0  # found, not doubled
    assert names(other.list()) == ["monet@1", "monet@2"]
    here, there = catalog.show("monet@2"), other.show("monet@2")
    same = {*StyleVersion.model_fields} - {"created_at", "checkpoint_uri", "reference_uri", "photo_uri", "preview_uri"}
    assert there.model_dump(include=same) == here.model_dump(include=same)
    assert there.tags == ["later"]
    assert Storage.open(there.checkpoint_uri).read_bytes() == b"2" * 1000
    assert findings(other, now=LATER) == []


def test_a_bundle_of_another_base_is_refused_unless_told(tmp_path: Path) -> None:
    one, two = (StyleCatalog.open(Storage.open(tmp_path / name)) for name in ("one", "two"))
    one.register(trained_style(one.storage, "monet", b"1", base_fingerprint="a" * 16))
    two.register(trained_style(two.storage, "hokusai", b"2", base_fingerprint="b" * 16))
    one.export_bundle("all", str(tmp_path / "bundle"))
    with pytest.raises(CatalogUsageError, match="--any-base"):
        two.import_bundle(str(tmp_path / "bundle"))
    assert names(two.list()) == ["hokusai@1"]
    assert names(two.import_bundle(str(tmp_path / "bundle"), any_base=True)) == ["monet@1"]


def test_bundles_that_were_tampered_with_are_refused(tmp_path: Path) -> None:
    one, two = (StyleCatalog.open(Storage.open(tmp_path / name)) for name in ("one", "two"))
    one.register(trained_style(one.storage, "monet", b"1"))
    bundle = tmp_path / "bundle"
    one.export_bundle("all", str(bundle))
    good = (bundle / "bundle.json").read_text()
    for old, new in (
        ('"style_id": "monet"', '"style_id": "../../monet"'),
        ('"suffix": ".safetensors"', '"suffix": "/../../x"'),
        ('"column": "checkpoint_uri"', '"column": "tags"'),
        ('"format": 1', '"format": 2'),
        ('"bytes": 1', '"bytes": 2'),
        (one.show("monet").checkpoint_sha256, "0" * 64),
    ):
        assert old in good
        (bundle / "bundle.json").write_text(good.replace(old, new))
        with pytest.raises(CatalogUsageError):
            two.import_bundle(str(bundle))
    (bundle / "bundle.json").unlink()
    with pytest.raises(CatalogUsageError, match="not a bundle"):
        two.import_bundle(str(bundle))
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    with pytest.raises(CatalogUsageError, match="not a bundle"):
        two.import_bundle(str(tmp_path / "evil.tar"))
    assert not (tmp_path / "evil").exists()
    assert two.storage.list_files() == []


def test_gc_on_the_command_line(catalog: StyleCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    uri = catalog.storage.uri
    assert main(["delete", "hokusai", "--storage", uri]) == 0
    assert main(["gc", "--older-than", "0s", "--dry-run", "--storage", uri, "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["versions"] == ["hokusai@1"]
    assert main(["gc", "--older-than", "0s", "--storage", uri]) == 0
    assert "freed the files of hokusai@1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["gc", "--older-than", "soon", "--storage", uri])
