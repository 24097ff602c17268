"""Parquet files of others, read by their plain types alone.

A Parquet file may carry the Arrow schema that it was written with, and that schema may name extension types, whose
columns pyarrow makes by running the code that is registered under the name. Ray registers a type of pickled objects,
which run anything when they are read. So the stored schema is hidden from pyarrow, which leaves the types that Parquet
itself declares, and a file whose schema names an extension type is refused.
"""

import base64
import binascii
import io
import re

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.place import Storage
from cluster.storage.types import StorageError

_MAGIC = b"PAR1"
_SCHEMA_KEY, _HIDDEN_KEY = b"ARROW:schema", b"hidden:schem"
_MOST_FOOTER = 256 << 20
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")
_EXTENSION = re.compile(rb"ARROW:extension:name")


class UnsafeTable(StorageError):
    """A table with types that only code could read."""


def open_parquet(file: Storage) -> pq.ParquetFile:
    """The file, its columns of Parquet's plain types.

    Raises:
        UnsafeTable: its schema names an extension type; the message names both.
        StorageError: it cannot be read, or is not a Parquet file.
    """
    try:
        source = file.filesystem.open_input_file(file.path)
        footer_at, footer = _footer(source)
    except (OSError, ValueError) as error:
        raise StorageError(f"{file.uri} is not a readable Parquet file: {error}") from None
    if names := extension_names(footer):
        raise UnsafeTable(
            f"{file.uri} has columns of the extension type {', '.join(names)}, which is not read because it could run "
            "code: write it with plain columns"
        )
    plain = footer.replace(_SCHEMA_KEY, _HIDDEN_KEY)
    try:
        return pq.ParquetFile(pa.PythonFile(_Patched(source, footer_at, plain), mode="r"), pre_buffer=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{file.uri} is not a readable Parquet file: {error}") from None


def extension_names(footer: bytes) -> list[str]:
    """Extension types that the Arrow schema within a Parquet footer names."""
    names = set[str]()
    for match in _BASE64.finditer(footer):
        text = match.group()
        try:
            schema = base64.b64decode(text[: len(text) // 4 * 4])
        except binascii.Error:
            continue
        if _EXTENSION.search(schema):
            named = {name.decode() for name in re.findall(rb"[A-Za-z][\w-]*(?:\.[\w-]+)+", schema)}
            names |= named or {"(without a readable name)"}
    return sorted(names)


def _footer(source: pa.NativeFile) -> tuple[int, bytes]:
    """(offset, bytes) of the metadata at the end."""
    size = source.size()
    source.seek(max(0, size - 8))
    tail = source.read(8)
    if len(tail) < 8 or tail[4:] != _MAGIC:
        raise ValueError("it does not end as one" if size else "it is empty")
    length = int.from_bytes(tail[:4], "little")
    if length > min(size - 8, _MOST_FOOTER):
        raise ValueError(f"its footer claims {length} bytes")
    source.seek(size - 8 - length)
    return size - 8 - length, source.read(length)


class _Patched(io.RawIOBase):
    """A file with some bytes of it replaced by as many others."""

    def __init__(self, source: pa.NativeFile, at: int, replacement: bytes) -> None:
        self._source, self._at, self._replacement = source, at, replacement
        self._size, self._position = source.size(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._position + size, self._size)
        start = min(self._position, self._size)
        self._source.seek(start)
        data = bytearray(self._source.read(end - start))
        low, high = max(start, self._at), min(end, self._at + len(self._replacement))
        if low < high:
            data[low - start : high - start] = self._replacement[low - self._at : high - self._at]
        self._position = end
        return bytes(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
