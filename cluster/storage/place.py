"""One way to open storage: a local folder or an ``s3://bucket/prefix``, chosen by its URI.

S3 is set up as for any AWS program (:mod:`cluster.storage.aws`). Nothing of it travels with a :class:`Storage`: every
process uses its own environment, so that no secret is pickled, logged or recorded.
"""

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Self

from cluster.storage.local import LocalFiles
from cluster.storage.names import check_name, check_readable_name, normalize_uri
from cluster.storage.types import TEMP_PREFIX, Backend, FileInfo, NotFound, StorageError, StorageRefused

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Storage:
    """A place for files. Small, comparable and picklable; connects when first used.

    A ``name`` is relative to ``uri``; the empty name is the URI itself, where that names a file. What others stored
    under names that are refused for writing (``a//b.png`` in S3, backslashes) can be read, listed and deleted.
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
        if self.is_local:
            from pyarrow.fs import LocalFileSystem  # slow to load, and needed by Ray and Arrow alone

            return LocalFileSystem()
        from cluster.storage.arrow import make_filesystem

        return make_filesystem()

    def child(self, *names: str) -> "Storage":
        return Storage(self.child_uri("/".join(check_name(name) for name in names)))

    def child_uri(self, name: str = "") -> str:
        """The URI of the file ``name``."""
        return self._join(self.uri, self._checked(name))

    def read_bytes(self, name: str = "") -> bytes:
        """Raises :class:`NotFound` where there is no such file."""
        return self._backend.read_bytes(self._key(name))

    def write_bytes(self, name: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes the file whole or not at all, durably.

        With ``if_absent`` an existing file is kept, and of concurrent writers exactly one is told True.
        """
        return self._backend.write_bytes(self._key(name, write=True), data, if_absent)

    def stat(self, name: str = "") -> FileInfo | None:
        """Size and version of a file; None where there is none."""
        return self._backend.stat(self._key(name))

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file (folders do not count)."""
        return self.stat(name) is not None

    def is_file(self) -> bool:
        """Whether the URI names a file. An empty object with files below its name only marks a folder in S3."""
        info = self.stat()
        return info is not None and (info.size > 0 or next(self.walk(), None) is None)

    def size(self, name: str = "") -> int:
        """Bytes; raises :class:`NotFound` where there is no such file."""
        if (info := self.stat(name)) is None:
            raise NotFound(f"{self.child_uri(name)}: no such file")
        return info.size

    def sha256(self, name: str = "") -> str:
        """Hex digest of a file's content, read in pieces; raises :class:`NotFound` where there is no such file."""
        digest = hashlib.sha256()
        with self._backend.open(self._key(name)) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    def open_file(self, name: str = "") -> BinaryIO:
        """For reading, at any position; raises :class:`NotFound` where there is no such file."""
        return self._backend.open(self._key(name))

    def read_range(self, start: int, end: int, name: str = "", *, version: str = "") -> bytes:
        """Bytes ``start`` to ``end`` (exclusive), fewer where the file ends before; refused if it has another version
        than is given, or none.
        """
        return self._backend.read_range(self._key(name), start, end, version)

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
        self._backend.upload_file(Path(local_path), self._key(name, write=True))

    def download_file(self, name: str, local_path: str | os.PathLike[str]) -> None:
        """To a local file, which appears whole or not at all."""
        self._backend.download_file(self._key(name), Path(local_path))

    def check_writable(self) -> None:
        """Writes and removes a small file within seconds, so that a job learns of bad storage before it works.

        It is created twice as Delta creates a commit (by a hard link, or a conditional put), and the second must fail.
        """
        self._key("check", write=True)
        self._backend.check_writable(self._join(self._base, f"{TEMP_PREFIX}check-{uuid.uuid4().hex}"))

    def delta_uri(self, name: str = "") -> str:
        """The URI of a Delta table for ``deltalake``.

        Raises:
            StorageError: a name that ``deltalake`` cannot open, or takes for another.
        """
        uri = self.child_uri(name)
        if found := re.search(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\\]|(?<!:)//", uri):
            raise StorageRefused(f"{uri!r} cannot hold tables because it contains {found[0]!r}: choose another name")
        return uri

    def delta_options(self) -> dict[str, str]:
        """``storage_options`` for ``deltalake``. They hold credentials, which expire: ask again for each operation,
        and neither keep nor print them.
        """
        return self._backend.delta_options()

    def explain(self, error: Exception) -> tuple[type[StorageError], str] | None:
        """The kind and cause of an error of another client, such as delta-rs, where its text says one that is known."""
        return self._backend.explain(str(error))

    @cached_property
    def _backend(self) -> Backend:
        if self.is_local:
            return LocalFiles()
        from cluster.storage.s3 import S3Objects  # boto3 is slow to load

        return S3Objects(self.path.partition("/")[0])

    @property
    def _base(self) -> str:
        return self.path if self.is_local else self.path.partition("/")[2]

    def _key(self, name: str, *, write: bool = False) -> str:
        if write and not self.is_local:
            check_name(self._join(self._base, name))
        elif write and name:
            check_name(name)
        return self._join(self._base, self._checked(name))

    def _checked(self, name: str) -> str:
        return check_readable_name(name, key=not self.is_local) if name else ""

    def _join(self, base: str, name: str) -> str:
        return str(PurePosixPath(base, name)) if self.is_local else "/".join(p for p in (base, name) if p)
