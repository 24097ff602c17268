"""S3 for Arrow and Ray Train, through the same client as everything else.

Arrow's own S3 client reads neither a profile's endpoint nor NO_PROXY nor AWS_CA_BUNDLE, cannot pay for a requester, and
does not renew the credentials it is given.
"""

import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from cluster.storage.s3 import S3Objects
from cluster.storage.types import NotFound

_IN_MEMORY = 8 << 20
"""Larger files wait on disk until they are whole and uploaded."""


def make_filesystem() -> PyFileSystem:
    """Paths are ``bucket/key``. It is pickled without a connection: each process uses its own."""
    return PyFileSystem(_S3Handler())


class _S3Handler(FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Folders are what keys have in common: creating one does nothing, and an empty one does not exist."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _S3Handler)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return path.rstrip("/")

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        return [self._info(path.rstrip("/")) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        base = selector.base_dir.rstrip("/")
        found: dict[str, FileInfo] = {}
        objects, key = _at(base)
        for info in objects.walk(key, recursive=True):
            parts = info.name.split("/")
            for depth in range(1, len(parts) if selector.recursive else min(2, len(parts))):
                folder = "/".join([base, *parts[:depth]])
                found[folder] = FileInfo(folder, FileType.Directory)
            if selector.recursive or len(parts) == 1:
                path = f"{base}/{info.name}"
                found[path] = FileInfo(path, FileType.File, size=info.size, mtime=info.modified)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(base)
        return list(found.values())

    def create_dir(self, path: str, recursive: bool) -> None:
        """There are no folders."""

    def delete_dir(self, path: str) -> None:
        for name in _below(path):
            self.delete_file(name)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("all buckets are not emptied at once")

    def delete_file(self, path: str) -> None:
        objects, key = _at(path)
        objects.delete(key)

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        with self._open(src) as source, _Upload(dest) as target:
            while piece := source.read(_IN_MEMORY):
                target.write(piece)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self._open(path), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self._open(path), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        return pa.PythonFile(_Upload(path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        raise NotImplementedError("objects of S3 cannot be appended to")

    def _open(self, path: str) -> BinaryIO:
        objects, key = _at(path)
        try:
            return objects.open(key)
        except NotFound as error:
            raise FileNotFoundError(str(error)) from error

    def _info(self, path: str) -> FileInfo:
        objects, key = _at(path)
        if (info := objects.stat(key)) is not None:
            return FileInfo(path, FileType.File, size=info.size, mtime=info.modified)
        below = next(objects.walk(key, recursive=True), None)
        return FileInfo(path, FileType.NotFound if below is None else FileType.Directory)


class _Upload:
    """Gathers what is written and stores it when it is closed: whole or not at all."""

    def __init__(self, path: str) -> None:
        self._objects, self._key = _at(path)
        self._file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is stored before the end."""

    def close(self) -> None:
        if not self.closed:
            with self._file:
                self._file.seek(0)
                self._objects.upload(self._file, self._key)

    def __enter__(self) -> "_Upload":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def _at(path: str) -> tuple[S3Objects, str]:
    bucket, _, key = path.partition("/")
    return S3Objects(bucket), key


def _below(path: str) -> Iterator[str]:
    objects, key = _at(path.rstrip("/"))
    names = [info.name for info in objects.walk(key, recursive=True)]
    return (f"{path.rstrip('/')}/{name}" for name in names)
