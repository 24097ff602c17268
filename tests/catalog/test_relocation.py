"""A storage that was moved or mirrored, and one that may only be read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobs.stylize
from catalog.__main__ import main
from catalog.lineage import picture_lineage
from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage, StorageError
from jobs.streaming.command import StylizeFlags, resolve
from tests.support.in_process import without_cluster
from tests.support.styles import finished_training, new_style
from tests.support.stylize_case import Case


def test_files_below_the_storage_are_named_relative_to_it(storage: Storage, tmp_path: Path) -> None:
    catalog = StyleCatalog.open(storage)
    trained = catalog.register(finished_training(storage, "monet", b"here"))
    elsewhere = catalog.register(finished_training(Storage.open(tmp_path / "elsewhere"), "monet", b"elsewhere"))
    catalog.register(new_style(storage, "hokusai", reference_uri="relative.jpg", photo_uri="s3://other/photo.png"))
    catalog.set_preview("monet@1", storage.child_uri("checkpoints/monet/0123456789ab/preview-2.png"), "portraits-1")
    table = catalog.rows.open()
    assert table is not None
    stored = {row["checkpoint_sha256"]: row for row in table.to_pyarrow_table().to_pylist()}
    assert stored[trained.checkpoint_sha256]["checkpoint_uri"] == "checkpoints/monet/0123456789ab/style.safetensors"
    assert stored[trained.checkpoint_sha256]["reference_uri"] == "checkpoints/monet/0123456789ab/reference.png"
    shown = catalog.show("monet@1")
    assert shown.preview_uri == storage.child_uri("checkpoints/monet/0123456789ab/preview-2.png")
    assert shown.model_copy(update={"preview_uri": trained.preview_uri, "probe_set": None}) == trained
    assert catalog.show("monet@2") == elsewhere
    assert elsewhere.checkpoint_uri.startswith(f"{tmp_path}/elsewhere/")
    guest = catalog.show("hokusai")
    assert (guest.reference_uri, guest.photo_uri) == ("relative.jpg", "s3://other/photo.png")
    assert catalog.find("monet", trained.checkpoint_uri) == shown
    where = f"checkpoint_uri={trained.checkpoint_uri}"
    assert main(["list", "--storage", storage.uri, "--where", where, "--json"]) == 0


def test_a_moved_storage_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Storage.open(tmp_path / "old")
    for style_id in ("monet", "hokusai"):
        StyleCatalog.open(old).register(finished_training(old, style_id, style_id.encode()))
    shutil.move(old.uri, tmp_path / "new")
    new = StyleCatalog.open(Storage.open(tmp_path / "new"))
    assert main(["verify", "--storage", new.storage.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"versions": 2, "findings": []}
    monet = new.show("monet")
    assert monet.checkpoint_uri == new.storage.child_uri("checkpoints/monet/0123456789ab/style.safetensors")
    again = finished_training(new.storage, "monet", b"monet")
    assert str(new.register(again)) == "monet@1"


@pytest.mark.parametrize(
    ("harm", "told"),
    [(lambda path: path.unlink(), "no such checkpoint"), (lambda path: path.write_bytes(b"cut"), "has 3 bytes, not")],
)
def test_the_plan_tells_each_checkpoint_that_is_gone_or_cut_short(
    tmp_path: Path, harm: Callable[[Path], Any], told: str
) -> None:
    case = Case.make(Storage.open(tmp_path / "store"), tmp_path, styles=3)
    case.add_pictures(1)
    catalog = StyleCatalog.open(case.root)
    for style_id in ("style-0", "style-2"):
        harm(Path(catalog.show(style_id).checkpoint_uri))
    with pytest.raises(ConfigError) as caught:
        resolve(StylizeFlags(**case.flags, dry_run=True))
    assert str(caught.value).count(told) == 2
    assert resolve(StylizeFlags(**(case.flags | {"styles": "style-1"}), dry_run=True)).variants


def test_who_may_only_read_the_catalog_can_stylize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.make(Storage.open(tmp_path / "store"), tmp_path, styles=1)
    case.add_pictures(2)
    output = Storage.open(tmp_path / "mine")
    kept = case.root.list_files()
    written = Storage.write_bytes

    def refused(self: Storage, name: str = "", *given: Any, **options: Any) -> bool:
        if self.child_uri(name).startswith(case.root.uri):
            raise StorageError(f"{self}: cannot write: Permission denied")
        return written(self, name, *given, **options)

    monkeypatch.setattr(Storage, "write_bytes", refused)
    monkeypatch.setattr(Storage, "check_writable", lambda self: self.write_bytes("probe", b""))
    without_cluster(monkeypatch)
    monkeypatch.setattr("sys.argv", case.argv(output=output.uri))
    assert jobs.stylize.main() == 0
    assert case.root.list_files() == kept
    (record,) = output.list_files("runs")
    assert json.loads(output.read_bytes(f"runs/{record}"))["counts"]["done"] == 2
    (picture, _) = (f"{output}/images/{name}" for name in output.list_files("images"))
    lineage = picture_lineage(StyleCatalog.open(case.root), picture, "again")
    assert lineage["run"]["outcome"] == "done"
    assert lineage["command"]
