"""Stage "list": a folder or prefix, one file, or a table's column of URIs → a stream of inputs.

Takes a URI; gives an :class:`Item` for each input. Needs the inputs' storage. A fault of the storage stops the run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Protocol

import pyarrow as pa
import pyarrow.dataset as ds

from catalog.output_names import relative_key, uri_key
from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError
from cluster.storage.tables import open_parquet

READABLE = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
PICTURES = READABLE | {".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd"}
"""Extensions taken from a folder: those that cannot be read too, to be rejected rather than overlooked."""

_TABLES = frozenset([".parquet", ".csv"])


@dataclass(frozen=True)
class Item:
    """One input. ``locator`` is what the source's ``read`` takes."""

    uri: str
    key: str
    locator: str


class Source(Protocol):
    """A stream of inputs and a way to read each, usable on any node."""

    unique: ClassVar[bool]
    """Whether no input can come twice."""

    def items(self) -> Iterator[Item]:
        """All inputs, in an order that is the same every time while nothing changes."""
        ...

    def read(self, locator: str) -> bytes:
        """Bytes of one input."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """Picture files below a folder or prefix; hidden files and other extensions are skipped."""

    unique: ClassVar[bool] = True
    folder: Storage

    def items(self) -> Iterator[Item]:
        for info in self.folder.walk():
            path = PurePosixPath(info.name)
            if path.suffix.lower() in PICTURES and not any(part.startswith(".") for part in path.parts):
                yield Item(f"{self.folder.uri}/{info.name}", relative_key(info.name), info.name)

    def read(self, locator: str) -> bytes:
        return self.folder.read_bytes(locator)


@dataclass(frozen=True)
class FileSource:
    """A single file, whatever its name."""

    unique: ClassVar[bool] = True
    file: Storage

    def items(self) -> Iterator[Item]:
        yield Item(self.file.uri, relative_key(PurePosixPath(self.file.path).name), "")

    def read(self, locator: str) -> bytes:
        return self.file.read_bytes(locator)


@dataclass(frozen=True)
class TableSource:
    """The column ``column`` of a Parquet or CSV file; relative paths start at the file's folder.

    An empty cell stays an input, named by its row, and fails when read.
    """

    unique: ClassVar[bool] = False
    file: Storage
    column: str

    def items(self) -> Iterator[Item]:
        root = self.file.uri.rpartition("/")[0]
        row = 0
        for batch in self._batches():
            for value in batch.column(0).cast(pa.string()).to_pylist():
                row += 1
                if not value:
                    nowhere = f"{self.file.uri}#row={row}"
                    yield Item(nowhere, uri_key(nowhere), "")
                else:
                    uri = value if "://" in value or value.startswith("/") else f"{root}/{value}"
                    yield Item(uri, uri_key(uri), uri)

    def read(self, locator: str) -> bytes:
        if not locator:
            raise FileNotFoundError(f"column {self.column} is empty in this row")
        return Storage.open(locator).read_bytes()

    def column_names(self) -> list[str]:
        """Raises StorageError, ArrowInvalid or OSError where the table cannot be read."""
        names: list[str] = open_parquet(self.file).schema_arrow.names if self._parquet else self._csv().schema.names
        return names

    @property
    def _parquet(self) -> bool:
        return PurePosixPath(self.file.path).suffix.lower() == ".parquet"

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self._parquet:
            yield from open_parquet(self.file).iter_batches(8192, columns=[self.column])
        else:
            yield from self._csv().to_batches(columns=[self.column], batch_size=8192)

    def _csv(self) -> ds.Dataset:
        return ds.dataset(self.file.path, filesystem=self.file.filesystem, format="csv")


def open_source(uri: str, column: str) -> Source:
    """What ``uri`` stands for.

    Raises:
        ConfigError: there is nothing to read there.
        StorageError: it cannot be reached.
    """
    place = Storage.open(uri)
    if not place.exists():
        source: Source = FolderSource(place)
    elif PurePosixPath(place.path).suffix.lower() in _TABLES:
        source = TableSource(place, column)
        try:
            names = source.column_names()
        except StorageError as error:
            raise ConfigError(Problem("--input", str(error))) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(Problem("--input", f"{uri} is not a readable table: {error}")) from None
        if column not in names:
            raise ConfigError(Problem("--input-column", f"{uri} has no column {column}, only {', '.join(names)}"))
    else:
        source = FileSource(place)
    if next(source.items(), None) is None:
        raise ConfigError(Problem("--input", f"no pictures in {uri}", f"files ending in {' '.join(sorted(READABLE))}"))
    return source
