"""Parquet: a file or a folder of files, with a column of URIs or of the pictures' bytes.

Pictures are a column of bytes, or of structs ``{bytes, path}`` as the Hugging Face libraries write them. Listing reads
footers alone; a picture is read with its row group, which a process keeps for the next.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.output_names import relative_key
from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError, StorageUnavailable
from cluster.storage.interleave import interleaved
from cluster.storage.tables import open_parquet
from jobs.streaming.inputs.folder import files_below
from jobs.streaming.inputs.item import FILES_AT_ONCE, Item, Rejected, as_text, failing, no_file, opened, read_located
from jobs.streaming.inputs.table import Named, located, no_column

PARQUET = frozenset([".parquet", ".pq"])

LARGEST_GROUP = 512 << 20
"""Bytes of pictures in a row group that is still read."""

BLOCKS_KEPT = 256 << 20
"""Bytes of row groups that a process keeps; the newest is kept whatever its size."""

Kind = Literal["uri", "bytes", "struct"]


@dataclass(frozen=True)
class ParquetSource:
    """The column ``column`` of a file, or of all Parquet files below a folder."""

    place: Storage
    column: str
    kind: Kind
    is_file: bool

    @classmethod
    def of(cls, place: Storage, column: str | None, is_file: bool) -> "ParquetSource":
        """What the first file tells; without ``column``: ``uri``, else the only one of structs ``{bytes, path}``.

        Raises:
            ConfigError: it cannot be read, or has no such column of text or pictures.
        """
        name = "" if is_file else min(files_below(place, PARQUET, Counter()), default="")
        file = _file(place, name)
        try:
            table = open_parquet(file)
            schema = table.schema_arrow
            column = column or _default_column(schema)
            kinds = [field.type for field in schema if field.name == column]
            if len(kinds) != 1:
                raise ConfigError(no_column(file, column, schema.names, len(kinds)))
            kind = _kind(kinds[0])
            if kind is None:
                said = f"column {column} of {file} is {kinds[0]}, not text, nor bytes or {{bytes, path}} of pictures"
                raise ConfigError(Problem("--input-column", said))
            if kind != "uri":
                _group_rows(table, column)
            if kind == "bytes" and _is_text(table, column):
                kind = "uri"
        except StorageError as error:
            raise ConfigError(Problem("--input", str(error))) from None
        except Rejected as rejected:
            raise ConfigError(Problem("--input", f"{file}: {rejected}", "write smaller row groups")) from None
        return cls(place, column, kind, is_file)

    @property
    def unique(self) -> bool:
        return self.kind != "uri"

    @property
    def in_blocks(self) -> bool:
        return self.kind != "uri"

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        passed_over = Counter() if passed_over is None else passed_over
        names = [""] if self.is_file else files_below(self.place, PARQUET, passed_over)
        at_once = 2 if self.kind == "uri" else FILES_AT_ONCE
        for group in interleaved((self._file_items(name) for name in names), at_once):
            yield from group

    def read(self, locator: str) -> bytes:
        if self.kind == "uri" or locator.startswith(no_file("")):
            return read_located(locator)
        version, group, row, number, uri = locator.split(" ", 4)
        value = _blocks.get((uri, version, int(group), self.column))[int(row)].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data:
            return bytes(data)
        if isinstance(value, dict) and value.get("path"):
            return opened(located(value["path"], uri)).read_bytes()
        raise FileNotFoundError(f"row {number} is empty")

    def _file_items(self, name: str) -> Iterator[list[Item]]:
        """Inputs of a file, by row group or in parts of another size."""
        file = _file(self.place, name)
        try:
            version, rows = self._groups(file)
        except Rejected as rejected:
            yield [failing(as_text(file.uri), str(rejected))]
            return
        if self.kind == "uri":
            yield from self._named(file)
        else:
            yield from self._pictures(file, name or file.uri.rpartition("/")[2], version, rows)

    def _groups(self, file: Storage) -> tuple[str, list[int]]:
        """The file's version, and the rows of each row group."""
        try:
            info = file.stat()
            table = open_parquet(file)
        except StorageUnavailable:
            raise
        except StorageError as error:
            raise Rejected(str(error)) from None
        kinds = [_kind(field.type) for field in table.schema_arrow if field.name == self.column]
        if len(kinds) != 1:
            raise Rejected(f"the file has no column {self.column}")
        if kinds[0] != self.kind and (kinds[0], self.kind) != ("bytes", "uri"):
            raise Rejected(f"column {self.column} is of another kind than in the first file")
        rows = [] if self.kind == "uri" else _group_rows(table, self.column)
        return (info.version if info else "").replace(" ", ""), rows

    def _named(self, file: Storage) -> Iterator[list[Item]]:
        numbers = count(1)
        for batch in open_parquet(file).iter_batches(8192, columns=[self.column]):
            column = batch.column(0)
            text = column if _is_binary(column.type) else column.cast(pa.string()).cast(pa.binary())
            yield [Named.of(next(numbers), value).item(as_text(file.uri)) for value in text.to_pylist()]

    def _pictures(self, file: Storage, name: str, version: str, rows: list[int]) -> Iterator[list[Item]]:
        """One input a row, numbered from 1; in a folder of its file's name."""
        uri, folder, numbers = as_text(file.uri), relative_key(name.rpartition(".")[0] or name), count(1)
        for group, size in enumerate(rows):
            places = [(row, next(numbers)) for row in range(size)]
            yield [
                Item(f"{uri}#row={number}", f"{folder}/{number:09d}", f"{version} {group} {row} {number} {uri}")
                for row, number in places
            ]


class _Blocks:
    """Columns of row groups, read by whichever thread first asks for them."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, str, int, str], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, int, str]) -> pa.ChunkedArray:
        """The column of (file's URI, its version, row group, name)."""
        with self._lock:
            if key not in self._held:
                uri, _, group, column = key
                try:
                    self._held[key] = open_parquet(opened(uri)).read_row_group(group, columns=[column]).column(0)
                except (pa.ArrowException, OSError) as error:
                    raise ValueError(f"row group {group} of {uri} cannot be read: {error}") from None
            self._held.move_to_end(key)
            while len(self._held) > 1 and sum(column.nbytes for column in self._held.values()) > BLOCKS_KEPT:
                self._held.popitem(last=False)
            return self._held[key]


_blocks = _Blocks()


def _file(place: Storage, name: str) -> Storage:
    return Storage(f"{place.uri}/{name}") if name else place


def _default_column(schema: pa.Schema) -> str:
    structs = [field.name for field in schema if _kind(field.type) == "struct"]
    return structs[0] if "uri" not in schema.names and len(structs) == 1 else "uri"


def _kind(of: pa.DataType) -> Kind | None:
    """What a column of this type may hold; None: nothing that is an input."""
    if pa.types.is_struct(of):
        fields = {field.name: field.type for field in of}
        return "struct" if "bytes" in fields and _is_binary(fields["bytes"]) else None
    if pa.types.is_dictionary(of):
        return _kind(of.value_type)
    if _is_binary(of):
        return "bytes"
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    return "uri" if any(test(of) for test in tests) else None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(table: pq.ParquetFile, column: str) -> bool:
    """Whether the first value of a column of bytes is a path or URI, not a picture."""
    for batch in table.iter_batches(64, columns=[column]):
        for value in batch.column(0).drop_null().to_pylist():
            try:
                return bool(value.decode().isprintable())
            except UnicodeDecodeError:
                return False
    return True


def _group_rows(table: pq.ParquetFile, column: str) -> list[int]:
    """Rows of each row group.

    Raises:
        Rejected: one is too large to be read at once.
    """
    rows = []
    for group in range(table.num_row_groups):
        about: Any = table.metadata.row_group(group)
        chunks = [about.column(i) for i in range(about.num_columns)]
        ours = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] == column]
        size = sum(chunk.total_uncompressed_size for chunk in ours)
        if size > LARGEST_GROUP:
            raise Rejected(
                f"row group {group} holds {size >> 20} MiB of pictures; at most {LARGEST_GROUP >> 20} are read"
            )
        rows.append(about.num_rows)
    return rows
