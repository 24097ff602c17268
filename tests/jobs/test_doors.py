"""Every way in for files of others: what would run code, if it were read as what it claims to be, is refused."""

import hashlib
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from catalog.errors import CatalogUsageError, DamagedTable
from catalog.manifest import SCHEMA, Manifest
from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError, read_yaml
from cluster.storage import Storage, StorageError
from jobs.pretraining.sources import open_source as open_training_source
from jobs.pretraining.tables import read_table
from jobs.streaming.listing import open_source
from osasis.checkpoint import read_header
from osasis.errors import CheckpointError, OsasisError
from osasis.importers.pickled import read_checkpoint
from tests.support.styles import trained_style


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def pickled(tmp_path: Path) -> bytes:
    return pickle.dumps(Harm(tmp_path / "ran"))


@pytest.fixture
def table(pickled: bytes, tmp_path: Path) -> Path:
    """A Parquet file whose column Ray's extension type would unpickle."""
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType  # registers itself with Arrow

    evil = pa.ExtensionArray.from_storage(ArrowPythonObjectType(), pa.array([pickled], pa.large_binary()))
    file = tmp_path / "evil.parquet"
    pq.write_table(pa.table({"uri": evil, "file": ["a.png"], "image": [b"x"]}), file)
    return file


def renamed(file: Path, name: str) -> Path:
    target = file.parent / name
    target.write_bytes(file.read_bytes())
    return target


def rows_of(uri: Path) -> list[str]:
    """Locators of a list: those of rows that name nothing begin with "!"."""
    return [item.locator for item in open_source(str(uri), "uri").items()]


def bundle(folder: Path, checkpoint: bytes) -> Path:
    """An exported bundle of one style whose checkpoint is that, with the digests right."""
    storage = Storage.open(folder / "theirs")
    catalog = StyleCatalog.open(storage)
    catalog.register(trained_style(storage, "monet", checkpoint))
    catalog.export_bundle("all", str(folder / "bundle"))
    return folder / "bundle"


DOORS: dict[str, Callable[[Path], object]] = {
    "a table of inputs": lambda table: open_source(str(table), "uri"),
    "an image set's labels": lambda table: open_training_source(str(table), None, None, "image", 4),
    "a table of captions": lambda table: read_table(Storage.open(table.parent), Storage.open(table), None),
    "a list that is no text": lambda table: open_source(str(renamed(table, "evil.csv")), "uri"),
    "an official checkpoint": lambda table: read_checkpoint(table.with_name("style.pickle")),
    "a style's weights": lambda table: read_header(table.with_name("style.pickle")),
    "a styles file": lambda table: read_yaml(table.with_name("styles.yaml")),
    "a bundle's list": lambda table: StyleCatalog.open(Storage.open(table.parent / "ours")).import_bundle(
        str(table.parent / "forged")
    ),
    "a manifest": lambda table: Manifest(Storage.open(table.parent)).rows(),
    "a catalog": lambda table: StyleCatalog.open(Storage.open(table.parent)).list(),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_would_run_code_is_refused_in_a_sentence(door: str, table: Path, pickled: bytes, tmp_path: Path) -> None:
    (tmp_path / "style.pickle").write_bytes(pickled)
    (tmp_path / "styles.yaml").write_text(f"storage: !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n")
    (tmp_path / "forged").mkdir()
    renamed(table, "forged/bundle.json")
    for name in ("manifest", "catalog"):
        extension = {"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": ""}
        write_deltalake(
            tmp_path / name, pa.table({"uri": [pickled]}, pa.schema([pa.field("uri", pa.binary(), metadata=extension)]))
        )
    refusals = (ConfigError, StorageError, OsasisError, CatalogUsageError)
    with pytest.raises(refusals) as caught:
        DOORS[door](table)
    assert "Traceback" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_list_is_lines_of_text_whatever_it_holds(table: Path, pickled: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.png\n" + pickled.replace(b"\n", b"") + b"\n\xff\xfe\n")
    assert rows_of(tmp_path / "list.txt")[0] == f"{tmp_path}/a.png"
    rows_of(renamed(table, "table.txt"))
    assert not (tmp_path / "ran").exists()


def test_a_bundles_pickled_weights_are_carried_and_never_run(pickled: bytes, tmp_path: Path) -> None:
    given = bundle(tmp_path, pickled)
    (version,) = StyleCatalog.open(Storage.open(tmp_path / "ours")).import_bundle(str(given))
    assert version.checkpoint_sha256 == hashlib.sha256(pickled).hexdigest()
    with pytest.raises(CheckpointError, match="is not a style checkpoint"):
        read_header(Path(version.checkpoint_uri))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["outside", "link", "device"])
def test_a_bundles_archive_cannot_leave_its_folder(kind: str, tmp_path: Path) -> None:
    member = tarfile.TarInfo("../../escaped" if kind == "outside" else "bundle.json")
    member.type = {"outside": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}[kind]
    member.linkname = "/etc/passwd" if kind == "link" else ""
    with tarfile.open(tmp_path / "forged.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(CatalogUsageError, match="not a bundle"):
        StyleCatalog.open(Storage.open(tmp_path / "ours")).import_bundle(str(tmp_path / "forged.tar"))
    assert [path.name for path in tmp_path.iterdir()] == ["forged.tar"]


def test_a_table_of_other_columns_is_refused_in_a_sentence(tmp_path: Path) -> None:
    output = Storage.open(tmp_path)
    write_deltalake(tmp_path / "manifest", pa.table({"something": [1]}))
    with pytest.raises(DamagedTable, match=r"/manifest: is a different table: it has no column input_uri"):
        Manifest(output).rows()
    other = SCHEMA.set(SCHEMA.get_field_index("version"), pa.field("version", pa.string()))
    write_deltalake(tmp_path / "other", pa.Table.from_pylist([{"input_uri": "x", "version": "1"}], schema=other))
    with pytest.raises(DamagedTable, match=r"/other: its column version holds string, not long"):
        Manifest(output, "other").rows()
    write_deltalake(tmp_path / "catalog", pa.table({"style_id": ["x"], "tags": ["a"]}))
    with pytest.raises(DamagedTable, match=r"/catalog: its column tags holds string, not array<string>"):
        StyleCatalog.open(output).list()
