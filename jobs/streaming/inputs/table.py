"""Text tables that name pictures: a column of a CSV file, a field of JSON lines, or a plain list."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

from catalog.output_names import uri_key
from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError
from jobs.streaming.inputs.item import Item, failing, read_located, suffix_of

TABLES = frozenset([".csv", ".txt", ".jsonl", ".ndjson"])

_LONGEST_LINE = 1 << 20
_IN_ORDER = pyarrow.csv.ReadOptions(use_threads=False)
_TOLERANT = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip")
_UNCHECKED = pyarrow.csv.ConvertOptions(check_utf8=False)


@dataclass(frozen=True)
class Named:
    """What a row of a table names, or why it names nothing."""

    place: str
    text: str | None
    reason: str = ""

    @classmethod
    def of(cls, number: int, value: bytes | None) -> "Named":
        try:
            return cls(f"row={number}", value.decode() if value else None, f"row {number} is empty")
        except UnicodeDecodeError:
            return cls(f"row={number}", None, f"row {number} is not UTF-8: {value[:200]!r}")  # type: ignore[index]

    def item(self, file_uri: str) -> Item:
        """An input of this row's own, relative paths starting at the table's folder; a failing one for no name."""
        if self.text:
            uri = located(self.text, file_uri)
            return Item(uri, uri_key(uri), uri)
        return failing(f"{file_uri}#{self.place}", self.reason)


def located(path: str, file_uri: str) -> str:
    """A path or URI that stands in a file; a relative one starts at the file's folder."""
    return path if "://" in path or path.startswith("/") else f"{file_uri.rpartition('/')[0]}/{path}"


@dataclass(frozen=True)
class TableSource:
    """The column ``column`` of a CSV file or of JSON lines, or the lines of a text file.

    Values are text as written: ``001`` stays ``001``. A row that names nothing stays an input, named by its number.
    """

    file: Storage
    column: str
    unique = False
    in_blocks = False

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        for row in self._rows():
            yield row.item(self.file.uri)

    def read(self, locator: str) -> bytes:
        return read_located(locator)

    def check(self) -> None:
        """Raises ConfigError where there is no such column, or nothing that can be read."""
        try:
            columns = self._columns()
        except StorageError as error:
            raise ConfigError(Problem("--input", str(error))) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConfigError(Problem("--input", f"{self.file} is not a readable table: {error}")) from None
        if columns is not None and (count := columns.count(self.column)) != 1:
            raise ConfigError(no_column(self.file, self.column, columns, count))

    def _columns(self) -> list[str] | None:
        """Names; None of a list."""
        match suffix_of(self.file.path):
            case ".txt":
                return None
            case ".csv":
                with self._opened() as file, pyarrow.csv.open_csv(file, _IN_ORDER, _TOLERANT, _UNCHECKED) as reader:
                    return [*reader.schema.names]
            case _:
                first = json.loads(next(self._lines(), b"{}"))
                if not isinstance(first, dict):
                    raise ValueError("its first line is not a JSON object")
                return [*first]

    def _opened(self) -> Any:
        return self.file.filesystem.open_input_stream(self.file.path, compression=None)

    def _rows(self) -> Iterator[Named]:
        match suffix_of(self.file.path):
            case ".csv":
                yield from self._csv_rows()
            case ".txt":
                yield from (Named.of(number, line) for number, line in enumerate(self._lines(), 1))
            case _:
                yield from (self._json_row(number, line) for number, line in enumerate(self._lines(), 1))

    def _lines(self) -> Iterator[bytes]:
        """Those that are not empty; one that is too long ends early."""
        with io.BufferedReader(self._opened()) as lines:
            while line := lines.readline(_LONGEST_LINE):
                rest = line
                while not rest.endswith(b"\n") and (rest := lines.readline(_LONGEST_LINE)):
                    pass
                if line := line.strip():
                    yield line

    def _json_row(self, number: int, line: bytes) -> Named:
        try:
            value = json.loads(line)[self.column]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            missing = isinstance(error, KeyError)
            why = f"has no {self.column}" if missing else f"is not a JSON object of less than {_LONGEST_LINE} bytes"
            return Named(f"row={number}", None, f"row {number} {why}")
        if not isinstance(value, str | int) or isinstance(value, bool):
            return Named(f"row={number}", None, f"row {number} {'is empty' if value is None else 'holds no text'}")
        return Named.of(number, str(value).encode(errors="surrogateescape"))

    def _csv_rows(self) -> Iterator[Named]:
        odd: list[Named] = []

        def keep(row: Any) -> str:
            odd.append(
                Named(f"line={row.number}", None, f"{row.actual_columns} columns instead of {row.expected_columns}")
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
                    yield Named.of(number, value)
                yield from odd
                odd.clear()
        yield from odd


def no_column(file: Storage, column: str, names: list[str], count: int) -> Problem:
    """A table that has the column not once."""
    found = f"has {count or 'no'} column{'s'[:count]} {column}"
    return Problem("--input-column", f"{file} {found}, only {', '.join(names)}")
