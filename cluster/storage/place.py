"""One way to open storage: a local folder or an ``s3://bucket/prefix``, chosen by its URI.

S3 is set up by the usual AWS variables: ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, ``AWS_REGION`` or
``AWS_DEFAULT_REGION``, and credentials by the AWS chain (variables, profile, role). None of them travels with a
:class:`Storage`: every process uses its own environment, so that no secret is pickled, logged or recorded.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

TEMP_PREFIX = ".osasis-tmp-"
"""Unfinished local files begin so; they are never listed and their names are refused."""


class StorageError(Exception):
    """Storage refused or failed: which URI, which operation, how to fix it. Never holds credentials."""


class NotFound(StorageError):
    """There is no such file."""


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

    def filesystem(self) -> "FileSystem": ...
    def read_bytes(self, path: str) -> bytes: ...
    def write_bytes(self, path: str, data: bytes, if_absent: bool) -> bool: ...
    def stat(self, path: str) -> FileInfo | None: ...
    def walk(self, path: str, recursive: bool) -> Iterator[FileInfo]: ...
    def delete(self, path: str) -> None: ...
    def upload_file(self, local_path: Path, path: str) -> None: ...
    def download_file(self, path: str, local_path: Path) -> None: ...
    def check_writable(self, path: str) -> None: ...
    def delta_options(self) -> dict[str, str]: ...


def check_name(name: str) -> str:
    """``name`` itself, if it is a relative path that stays below where it is put.

    Raises:
        StorageError: empty, absolute, with a backslash (S3 servers differ on it) or NUL, with an empty, ``.`` or ``..``
            part, or a temporary name.
    """
    for part in name.split("/"):
        if part in ("", ".", "..") or "\0" in part or "\\" in part or part.startswith(TEMP_PREFIX):
            raise StorageError(
                f"{name!r} cannot name a file in storage: use a relative path such as 'a/b.png', "
                "without backslashes and without empty, '.' or '..' parts"
            )
    return name


def normalize_uri(uri: str | os.PathLike[str]) -> str:
    """Absolute local path, or ``s3://bucket/prefix`` without a trailing slash. Opens nothing.

    Raises:
        StorageError: another scheme, no bucket, ``..`` in a prefix, or credentials in the URI.
    """
    text = os.fspath(uri)
    scheme, found, rest = text.partition("://")
    if not found:
        if not text or "\0" in text:
            raise StorageError(f"{text!r} is no path: give a folder or s3://bucket/prefix")
        return os.path.abspath(os.path.expanduser(text))
    if scheme == "file":
        return os.path.abspath(unquote(urlsplit(text).path) or "/")
    if scheme != "s3":
        raise StorageError(f"{scheme}:// is not supported: give a local path or s3://bucket/prefix")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if "@" in bucket or ":" in bucket:
        raise StorageError("an s3:// URI holds no credentials or port: use AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL")
    if not bucket:
        raise StorageError(f"{text!r} names no bucket: give s3://bucket/prefix")
    return f"s3://{bucket}/{check_name(prefix)}" if prefix else f"s3://{bucket}"


@dataclass(frozen=True)
class Storage:
    """A place for files. Small, comparable and picklable; connects when first used.

    A ``name`` is relative to ``uri``; the empty name is the URI itself, where that names a file.
    Every method raises :class:`StorageError`.
    """

    uri: str

    @classmethod
    def open(cls, uri: "str | os.PathLike[str] | Storage") -> "Storage":
        """From a path or URI; :meth:`check_writable` tells whether it can be reached."""
        return uri if isinstance(uri, Storage) else cls(normalize_uri(uri))

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.uri,)

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        return not self.uri.startswith("s3://")

    @property
    def path(self) -> str:
        """Path within :attr:`filesystem`: the local path, or ``bucket/prefix``."""
        return self.uri.removeprefix("s3://")

    @property
    def filesystem(self) -> "FileSystem":
        """For Ray and pyarrow; made in this process from its own environment."""
        return self._backend.filesystem()

    def child(self, *names: str) -> "Storage":
        return Storage(self._join(self.uri, "/".join(check_name(name) for name in names)))

    def child_uri(self, name: str = "") -> str:
        """The URI of the file ``name``."""
        return self._join(self.uri, check_name(name) if name else "")

    def read_bytes(self, name: str = "") -> bytes:
        """Raises :class:`NotFound` where there is no such file."""
        return self._backend.read_bytes(self._key(name))

    def write_bytes(self, name: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes the file whole or not at all, durably.

        With ``if_absent`` an existing file is kept, and of concurrent writers exactly one is told True.
        """
        return self._backend.write_bytes(self._key(name), data, if_absent)

    def stat(self, name: str = "") -> FileInfo | None:
        """Size and version of a file; None where there is none."""
        return self._backend.stat(self._key(name))

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file (folders do not count)."""
        return self.stat(name) is not None

    def size(self, name: str = "") -> int:
        """Bytes; raises :class:`NotFound` where there is no such file."""
        if (info := self.stat(name)) is None:
            raise NotFound(f"{self.child_uri(name)}: no such file")
        return info.size

    def sha256(self, name: str = "") -> str:
        """Hex digest of a file's content, read in pieces; raises :class:`NotFound` where there is no such file."""
        self.size(name)
        path = self._join(self.path, check_name(name) if name else "")
        try:
            with self.filesystem.open_input_stream(path) as file:
                digest = hashlib.sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
                return digest.hexdigest()
        except OSError as error:
            raise StorageError(f"{self.child_uri(name)}: cannot read: {type(error).__name__}; try again") from error

    def walk(self, name: str = "", recursive: bool = True) -> Iterator[FileInfo]:
        """Files below ``name`` in no promised order; a folder that does not exist is empty."""
        return self._backend.walk(self._key(name), recursive)

    def list_files(self, name: str = "", recursive: bool = True) -> list[str]:
        """Sorted names relative to ``name``, without unfinished files."""
        return sorted(info.name for info in self.walk(name, recursive))

    def delete(self, name: str = "") -> None:
        """Removes a file; one that is not there is no error."""
        self._backend.delete(self._key(name))

    def upload_file(self, local_path: str | os.PathLike[str], name: str = "") -> None:
        """As :meth:`write_bytes`, from a local file of any size."""
        self._backend.upload_file(Path(local_path), self._key(name))

    def download_file(self, name: str, local_path: str | os.PathLike[str]) -> None:
        """To a local file, which appears whole or not at all."""
        self._backend.download_file(self._key(name), Path(local_path))

    def check_writable(self) -> None:
        """Writes and removes a small file within seconds, so that a job learns of bad storage before it works."""
        self._backend.check_writable(self._key(TEMP_PREFIX + "check", checked=True))

    def delta_uri(self, name: str = "") -> str:
        """The URI of a Delta table for ``deltalake``.

        Raises:
            StorageError: a name that ``deltalake`` cannot open, or takes for another.
        """
        uri = self.child_uri(name)
        if found := re.search(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f]", uri):
            raise StorageError(f"{uri!r} cannot hold tables, for it contains {found[0]!r}: choose another name")
        return uri

    def delta_options(self) -> dict[str, str]:
        """``storage_options`` for ``deltalake``; credentials are found by itself in the environment."""
        return self._backend.delta_options()

    @cached_property
    def _backend(self) -> Backend:
        if self.is_local:
            from cluster.storage.local import LocalFiles

            return LocalFiles()
        from cluster.storage.s3 import S3Objects

        return S3Objects(self.path.partition("/")[0])

    def _key(self, name: str, checked: bool = False) -> str:
        base = self.path if self.is_local else self.path.partition("/")[2]
        return self._join(base, name if checked or not name else check_name(name))

    @staticmethod
    def _join(base: str, name: str) -> str:
        return str(PurePosixPath(base, name)) if base.startswith("/") else "/".join(p for p in (base, name) if p)
