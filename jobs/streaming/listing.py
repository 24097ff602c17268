"""Stage "list": whatever holds the pictures → a stream of inputs.

Takes a URI; gives an :class:`Item` for each input. Needs the inputs' storage. A fault of the storage stops the run.
What is no input is counted by reason; a row of a table that names none is an input that fails with the reason. Each
kind of inputs is a file of :mod:`jobs.streaming.inputs`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage
from jobs.streaming.inputs.folder import FileSource, FolderSource
from jobs.streaming.inputs.inventory import InventorySource, is_inventory
from jobs.streaming.inputs.item import READABLE, Item, Source, opened, suffix_of
from jobs.streaming.inputs.parquet import PARQUET, ParquetSource
from jobs.streaming.inputs.table import TABLES, TableSource
from jobs.streaming.inputs.tar import TAR, TarSource

__all__ = ["FileSource", "FolderSource", "InputFormat", "Item", "Source", "in_words", "open_source"]

InputFormat = Literal["auto", "pictures", "parquet", "webdataset"]
"""What is taken from a folder; ``auto``: pictures where there are any, else Parquet files or shards."""


@dataclass(frozen=True)
class OneOf:
    """A single input of a source, by its URI."""

    source: Source
    uri: str
    unique = True
    in_blocks = False

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        yield from next(([item] for item in self.source.items() if item.uri == self.uri), [])

    def read(self, locator: str) -> bytes:
        return self.source.read(locator)


def open_source(uri: str, column: str | None = None, kind: InputFormat = "auto") -> Source:
    """What ``uri`` stands for. ``column``: of a table, default ``uri``; of shards, the extension of their members.

    Raises:
        ConfigError: there is nothing to read there.
        StorageError: it cannot be reached.
    """
    place = opened(uri)
    source: Source
    passed_over: Counter[str] = Counter()
    if _is_file(place):
        source = _file(place, column)
    elif within := re.fullmatch(r"(.+\.(?:tar|parquet|pq))#.*", place.uri):
        source = OneOf(_file(Storage(within[1]), column), place.uri)
    elif kind in ("auto", "pictures"):
        source = FolderSource(place)
        if kind == "auto" and next(source.items(passed_over), None) is None:
            source = _of_others(place, column, passed_over) or source
    else:
        source = TarSource(place, column, False) if kind == "webdataset" else ParquetSource.of(place, column, False)
    passed_over = Counter()
    if next(source.items(passed_over), None) is None:
        there = f", only {in_words(passed_over)}" if passed_over else ""
        hint = f"files ending in {' '.join(sorted(READABLE))}, or a list of others as .txt"
        raise ConfigError(Problem("--input", f"no pictures in {uri}{there}", hint))
    return source


def _file(place: Storage, column: str | None) -> Source:
    suffix = suffix_of(place.path)
    if suffix in PARQUET:
        return ParquetSource.of(place, column, True)
    if suffix in TAR:
        return TarSource(place, column, True)
    if re.search(r"\.(tar\.(gz|bz2|xz|zst)|tgz)$", place.path):
        hint = "decompress it: shards are read by the places of their members"
        raise ConfigError(Problem("--input", f"{place} is a compressed tar file", hint))
    if is_inventory(place.uri):
        return InventorySource.of(place)
    if suffix in TABLES:
        table = TableSource(place, column or "uri")
        table.check()
        return table
    return FileSource(place)


def _of_others(place: Storage, column: str | None, found: Counter[str]) -> Source | None:
    """A folder without pictures, by what else is in it."""
    parquet = any(found[f"{suffix} files"] for suffix in PARQUET)
    if parquet and found[".tar files"]:
        hint = "say which by --input-format"
        raise ConfigError(Problem("--input", f"{place} holds no pictures, but Parquet files and shards", hint))
    if parquet:
        return ParquetSource.of(place, column, False)
    return TarSource(place, column, False) if found[".tar files"] else None


def _is_file(place: Storage) -> bool:
    """Whether a URI is a file's; an empty object with others below its name marks a folder of S3."""
    info = place.stat()
    return info is not None and (info.size > 0 or place.is_local or next(place.walk(), None) is None)


def in_words(passed_over: Counter[str]) -> str:
    """Counts by reason, the most first."""
    return ", ".join(
        f"{count} {reason}" for reason, count in sorted(passed_over.items(), key=lambda found: (-found[1], found[0]))
    )
