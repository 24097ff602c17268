"""Stage "list": a folder or prefix, one file, a table's column of URIs or a list of them → a stream of inputs.

Takes a URI; gives an :class:`Item` for each input. Needs the inputs' storage. A fault of the storage stops the run.
What is no input is counted by reason; a row of a table that names none is an input that fails with the reason.
"""

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Protocol
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.csv

from catalog.output_names import relative_key, uri_key
from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError
from cluster.storage.tables import open_parquet

READABLE = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
PICTURES = READABLE | {".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd"}
"""Extensions taken from a folder: those that cannot be read too, to be rejected rather than overlooked."""

_TABLES = frozenset([".parquet", ".csv", ".txt"])
_FILE = "file://"
_NO_FILE = "!"
"""Begins a locator that is the reason why an input cannot be read."""


@dataclass(frozen=True)
class Item:
    """One input. ``locator`` is what the source's ``read`` takes. All are valid Unicode."""

    uri: str
    key: str
    locator: str


class Source(Protocol):
    """A stream of inputs and a way to read each, usable on any node."""

    unique: ClassVar[bool]
    """Whether no input can come twice."""

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """All inputs, in an order that is the same every time while nothing changes; counts what is none, by reason."""
        ...

    def read(self, locator: str) -> bytes:
        """Bytes of one input."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """Picture files below a folder or prefix, links to other folders included."""

    unique: ClassVar[bool] = True
    folder: Storage

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        passed_over = Counter() if passed_over is None else passed_over
        for name in self._names(passed_over):
            if reason := why_none(name):
                passed_over[reason] += 1
            else:
                yield self._item(name)

    def read(self, locator: str) -> bytes:
        if self.folder.is_local:
            return opened(locator).read_bytes()
        return self.folder.read_bytes(locator)

    def _names(self, passed_over: Counter[str]) -> Iterator[str]:
        for info in self.folder.walk():
            yield info.name
        if self.folder.is_local:
            for link in linked_folders(self.folder.path, passed_over):
                for info in Storage.open(os.path.join(self.folder.path, link)).walk():
                    yield os.path.join(link, info.name)

    def _item(self, name: str) -> Item:
        uri = as_text(f"{self.folder.uri}/{name}")
        return Item(uri, relative_key(name), uri if self.folder.is_local else name)


def as_text(path: str) -> str:
    """``path`` itself, or ``file://…`` where it has bytes that are no UTF-8, which Python keeps as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"{_FILE}{quote(os.fsencode(path))}"
    return path


def opened(uri: str) -> Storage:
    """The storage of a URI, also of those that :func:`as_text` makes."""
    if uri.startswith(f"{_FILE}/"):
        return Storage(os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix(_FILE)))))
    return Storage.open(uri)


def why_none(name: str) -> str | None:
    """The reason why a file of a folder is no input; None for pictures."""
    path = PurePosixPath(name)
    if name.endswith("/") or not name:
        return "folder markers"
    if any(part.startswith(".") for part in path.parts):
        return "hidden"
    suffix = path.suffix.lower()
    # As downloads leave it: photo.jpg?w=600
    if suffix in PICTURES or PurePosixPath(re.sub(r"[?#].*", "", path.name)).suffix.lower() in PICTURES:
        return None
    return f"{suffix.encode(errors='replace').decode()} files" if suffix else "without extension"


def linked_folders(root: str, passed_over: Counter[str]) -> Iterator[str]:
    """Links below a local folder, and below what they lead to, to folders not listed otherwise; relative to it."""
    listed = [os.path.realpath(root)]
    waiting = [""]
    while waiting:
        start = waiting.pop(0)
        for folder, folders, _ in os.walk(os.path.join(root, start)):
            for name in sorted(folders):
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    continue
                target = os.path.realpath(path)
                if any(os.path.commonpath([target, known]) in (target, known) for known in listed):
                    passed_over["links to folders that are listed anyway"] += 1
                    continue
                listed.append(target)
                waiting.append(os.path.relpath(path, root))
                yield waiting[-1]


@dataclass(frozen=True)
class FileSource:
    """A single file, whatever its name."""

    unique: ClassVar[bool] = True
    file: Storage

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        yield Item(as_text(self.file.uri), relative_key(PurePosixPath(self.file.path).name), "")

    def read(self, locator: str) -> bytes:
        return self.file.read_bytes(locator)


@dataclass(frozen=True)
class TableSource:
    """The column ``column`` of a Parquet or CSV file, or the lines of a text file; relative paths start at its folder.

    Values are text as written: ``001`` stays ``001``. A row that names nothing stays an input, named by its number.
    """

    unique: ClassVar[bool] = False
    file: Storage
    column: str

    @property
    def kind(self) -> str:
        return PurePosixPath(self.file.path).suffix.lower()

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        root = self.file.uri.rpartition("/")[0]
        for row in self._rows():
            if row.text:
                uri = row.text if "://" in row.text or row.text.startswith("/") else f"{root}/{row.text}"
                yield Item(uri, uri_key(uri), uri)
            else:
                nowhere = f"{self.file.uri}#{row.place}"
                yield Item(nowhere, uri_key(nowhere), f"{_NO_FILE}{row.reason}")

    def read(self, locator: str) -> bytes:
        if locator.startswith(_NO_FILE):
            raise FileNotFoundError(locator.removeprefix(_NO_FILE))
        return opened(locator).read_bytes()

    def check(self) -> None:
        """Raises ConfigError where there is no such column, none of text, or nothing that can be read."""
        try:
            columns = self._columns()
        except StorageError as error:
            raise ConfigError(Problem("--input", str(error))) from None
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(Problem("--input", f"{self.file} is not a readable table: {error}")) from None
        if columns is None:
            return
        kinds = [kind for name, kind in columns if name == self.column]
        if len(kinds) != 1:
            found = f"has {len(kinds) or 'no'} column{'s'[: len(kinds)]} {self.column}"
            names = ", ".join(name for name, _ in columns)
            raise ConfigError(Problem("--input-column", f"{self.file} {found}, only {names}"))
        if not _holds_text(kinds[0]):
            raise ConfigError(Problem("--input-column", f"column {self.column} of {self.file} is {kinds[0]}, not text"))

    def _columns(self) -> list[tuple[str, pa.DataType]] | None:
        """Names and types; None of a list."""
        if self._kind == ".txt":
            return None
        if self._kind == ".parquet":
            return [(field.name, field.type) for field in open_parquet(self.file).schema_arrow]
        with self._opened() as file, pyarrow.csv.open_csv(file, _IN_ORDER, _TOLERANT, _UNCHECKED) as reader:
            return [(name, pa.binary()) for name in reader.schema.names]

    def _opened(self) -> Any:
        return self.file.filesystem.open_input_stream(self.file.path, compression=None)

    @property
    def _kind(self) -> str:
        return PurePosixPath(self.file.path).suffix.lower()

    def _rows(self) -> Iterator["_Row"]:
        if self._kind == ".csv":
            yield from self._csv_rows()
        else:
            values = self._lines() if self._kind == ".txt" else self._parquet_values()
            yield from (_Row.of(number, value) for number, value in enumerate(values, 1))

    def _lines(self) -> Iterator[bytes]:
        with io.BufferedReader(self._opened()) as lines:
            yield from filter(None, (line.strip() for line in lines))

    def _parquet_values(self) -> Iterator[bytes | None]:
        for batch in open_parquet(self.file).iter_batches(8192, columns=[self.column]):
            column = batch.column(0)
            text = column if _is_binary(column.type) else column.cast(pa.string()).cast(pa.binary())
            yield from text.to_pylist()

    def _csv_rows(self) -> Iterator["_Row"]:
        odd: list[_Row] = []

        def keep(row: Any) -> str:
            odd.append(
                _Row(f"line={row.number}", None, f"{row.actual_columns} columns instead of {row.expected_columns}")
            )
            return "skip"

        parse = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep)
        convert = pyarrow.csv.ConvertOptions(
            check_utf8=False, include_columns=[self.column], column_types={self.column: pa.binary()}
        )
        number = 0
        with (
            self._opened() as file,
            pyarrow.csv.open_csv(file, _IN_ORDER, parse, convert) as reader,
        ):
            for batch in reader:
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield _Row.of(number, value)
                yield from odd
                odd.clear()
        yield from odd


_IN_ORDER = pyarrow.csv.ReadOptions(use_threads=False)
_TOLERANT = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip")
_UNCHECKED = pyarrow.csv.ConvertOptions(check_utf8=False)


@dataclass(frozen=True)
class _Row:
    """What a row names, or why it names nothing."""

    place: str
    text: str | None
    reason: str = ""

    @classmethod
    def of(cls, number: int, value: bytes | None) -> "_Row":
        try:
            return cls(f"row={number}", value.decode() if value else None, f"row {number} is empty")
        except UnicodeDecodeError:
            return cls(f"row={number}", None, f"row {number} is not UTF-8: {value!r}")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    return _is_binary(kind) or any(test(kind) for test in tests)


def open_source(uri: str, column: str) -> Source:
    """What ``uri`` stands for.

    Raises:
        ConfigError: there is nothing to read there.
        StorageError: it cannot be reached.
    """
    place = opened(uri)
    source: Source
    if not _is_file(place):
        source = FolderSource(place)
    elif PurePosixPath(place.path).suffix.lower() in _TABLES:
        source = TableSource(place, column)
        source.check()
    else:
        source = FileSource(place)
    passed_over: Counter[str] = Counter()
    if next(source.items(passed_over), None) is None:
        there = f", only {in_words(passed_over)}" if passed_over else ""
        hint = f"files ending in {' '.join(sorted(READABLE))}, or a list of others as .txt"
        raise ConfigError(Problem("--input", f"no pictures in {uri}{there}", hint))
    return source


def _is_file(place: Storage) -> bool:
    """Whether a URI is a file's; an empty object with others below its name marks a folder of S3."""
    info = place.stat()
    return info is not None and (info.size > 0 or place.is_local or next(place.walk(), None) is None)


def in_words(passed_over: Counter[str]) -> str:
    """Counts by reason, the most first."""
    return ", ".join(
        f"{count} {reason}" for reason, count in sorted(passed_over.items(), key=lambda found: (-found[1], found[0]))
    )
