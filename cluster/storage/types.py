"""What every kind of storage shares: its errors, what is known of a file, and the operations of a backend."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

TEMP_PREFIX = ".osasis-tmp-"
"""Unfinished local files begin so; they are never listed and their names are refused."""


class StorageError(Exception):
    """Storage refused or failed: which URI, which operation, how to fix it. Never holds credentials.

    StorageError
    ├── NotFound             there is no such file
    ├── StorageRefused       this name, or access to it, is refused; other files may work, trying again will not help
    └── StorageUnavailable   nothing is said about the file: no answer, overload, expired credentials, a full disk;
                             the same operation may succeed later
    """


class NotFound(StorageError):
    """There is no such file."""


class StorageRefused(StorageError):
    """Storage answered, and refuses this file or bucket: access denied, no such bucket, an invalid name."""


class StorageUnavailable(StorageError):
    """Storage cannot serve anybody at present, whatever the file. Work that met it is undecided, not failed."""


@dataclass(frozen=True)
class FileInfo:
    """A stored file: name relative to what was listed, size in bytes, a tag that changes with its content, and when."""

    name: str
    size: int
    version: str
    modified: datetime
    """When it was last written, in UTC by the storage's clock."""


class Backend(Protocol):
    """What a kind of storage does with absolute paths (local path, or S3 key without bucket)."""

    def open(self, path: str) -> BinaryIO: ...
    def read_bytes(self, path: str) -> bytes: ...
    def read_range(self, path: str, start: int, end: int, version: str) -> bytes: ...
    def write_bytes(self, path: str, data: bytes, if_absent: bool) -> bool: ...
    def stat(self, path: str) -> FileInfo | None: ...
    def walk(self, path: str, recursive: bool) -> Iterator[FileInfo]: ...
    def delete(self, path: str) -> None: ...
    def upload_file(self, local_path: Path, path: str) -> None: ...
    def download_file(self, path: str, local_path: Path) -> None: ...
    def check_writable(self, path: str) -> None: ...
    def delta_options(self) -> dict[str, str]: ...
    def explain(self, text: str) -> tuple[type[StorageError], str] | None: ...
