"""Storage on a local or mounted file system."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from cluster.storage.types import TEMP_PREFIX, FileInfo, NotFound, StorageError, StorageRefused, StorageUnavailable

_UNAVAILABLE = frozenset(
    getattr(errno, name)
    for name in [
        "ENOSPC",
        "EDQUOT",
        "EROFS",
        "ESTALE",
        "ETIMEDOUT",
        "ENOTCONN",
        "EHOSTDOWN",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
    ]
)
"""Errors of the whole file system or process; all others are of one file."""

_FULL = "free some space or choose another place; what was written before is whole"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "choose a place that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def _explained(operation: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: cannot {operation}: no such file") from error
    except ValueError as error:  # a name the file system cannot encode
        raise StorageRefused(f"{path}: cannot {operation}: {error}; choose another name") from error
    except OSError as error:
        kind, reason = _explain(error.errno or 0, error.strerror or str(error))
        raise kind(f"{path}: cannot {operation}: {reason}") from error


def _explain(number: int, reason: str) -> tuple[type[StorageError], str]:
    remedy = _REMEDIES.get(number, "check path, permissions and the disk")
    return StorageUnavailable if number in _UNAVAILABLE else StorageRefused, f"{reason}; {remedy}"


def write_whole(target: Path, fill: Callable[[BinaryIO], object], *, if_absent: bool = False) -> bool:
    """Creates ``target`` complete or not at all, durably; False if it exists and ``if_absent``.

    The content is made in a temporary file beside it, flushed to disk and then renamed (or linked, which fails where
    the name is taken); the folder is flushed too, so that the name outlives a power cut.
    """
    temp = target.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        with _created(temp) as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if if_absent:
            try:
                os.link(temp, target)
            except FileExistsError:
                return False
        else:
            os.replace(temp, target)
    finally:
        temp.unlink(missing_ok=True)
    flush_folder(target.parent)
    return True


def _created(path: Path) -> BinaryIO:
    """A new file for writing, in a folder that is made with it."""
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process asked whether it may write, and took the folder back
            return path.open("xb")
    return path.open("xb")


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalFiles:
    """Absolute paths on the local file system."""

    def open(self, path: str) -> BinaryIO:
        with _explained("read", path):
            return Path(path).open("rb")

    def read_bytes(self, path: str) -> bytes:
        with _explained("read", path):
            return Path(path).read_bytes()

    def read_range(self, path: str, start: int, end: int, version: str) -> bytes:
        with _explained("read", path), Path(path).open("rb") as file:
            if version and version != (now := _version(os.fstat(file.fileno()))):
                raise StorageRefused(f"{path}: cannot read: the file has changed, from version {version} to {now}")
            file.seek(start)
            return file.read(end - start)

    def write_bytes(self, path: str, data: bytes, if_absent: bool) -> bool:
        with _explained("write", path):
            return write_whole(Path(path), lambda file: file.write(data), if_absent=if_absent)

    def stat(self, path: str) -> FileInfo | None:
        with _explained("look at", path), suppress(FileNotFoundError, NotADirectoryError):
            if os.path.isfile(path):
                return _info(path, os.path.basename(path))
        return None

    def walk(self, path: str, recursive: bool) -> Iterator[FileInfo]:
        def refuse(error: OSError) -> None:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise error

        with _explained("list", path):
            for folder, folders, files in os.walk(path, onerror=refuse):
                if not recursive:
                    folders.clear()
                for name in files:
                    full = os.path.join(folder, name)
                    # A file may go between listing and looking; a dangling link or a socket is no file.
                    with suppress(FileNotFoundError):
                        if not name.startswith(TEMP_PREFIX) and os.path.isfile(full):
                            yield _info(full, os.path.relpath(full, path))

    def delete(self, path: str) -> None:
        with _explained("delete", path):
            Path(path).unlink(missing_ok=True)

    def upload_file(self, local_path: Path, path: str) -> None:
        with _explained(f"copy {local_path} to", path):
            _copy(local_path, Path(path))

    def download_file(self, path: str, local_path: Path) -> None:
        with _explained(f"copy to {local_path}", path):
            _copy(Path(path), local_path)

    def check_writable(self, path: str) -> None:
        target = Path(path)
        with _explained("write", target.parent):
            made = [folder for folder in target.parents if not folder.exists()]  # the deepest first
            target.parent.mkdir(parents=True, exist_ok=True)
            probe = target.with_name(f"{target.name}-source")
            try:
                probe.write_bytes(b"ok")
                try:
                    os.link(probe, target)
                except OSError as error:
                    raise StorageRefused(
                        f"{target.parent}: cannot write tables: the file system makes no hard links "
                        f"({error.strerror}), by which Delta Lake commits; choose a local disk, NFS or s3://"
                    ) from error
                if write_whole(target, lambda file: file.write(b"ok"), if_absent=True):
                    raise StorageRefused(
                        f"{target.parent}: cannot write tables: a hard link replaced an existing file, so that "
                        "concurrent commits would be lost; choose a local disk, NFS or s3://"
                    )
            finally:
                probe.unlink(missing_ok=True)
                target.unlink(missing_ok=True)
                for folder in made:  # a question leaves nothing behind
                    with suppress(OSError):  # somebody else writes there by now
                        folder.rmdir()

    def delta_options(self) -> dict[str, str]:
        return {}

    def explain(self, text: str) -> tuple[type[StorageError], str] | None:
        found = re.search(r"\(os error (\d+)\)", text)
        return _explain(int(found[1]), os.strerror(int(found[1]))) if found else None


def _info(path: str, name: str) -> FileInfo:
    status = os.stat(path)
    return FileInfo(name, status.st_size, _version(status), datetime.fromtimestamp(status.st_mtime, UTC))


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_ino}"


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as opened:
        write_whole(target, lambda file: shutil.copyfileobj(opened, file, 1 << 20))
