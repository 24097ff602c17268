"""Storage on a local or mounted file system."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cluster.storage import TEMP_PREFIX, FileInfo, NotFound, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@contextmanager
def _explained(operation: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: cannot {operation}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name the file system cannot encode
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"{path}: cannot {operation}: {reason}; check path, permissions and space") from error


def write_whole(target: Path, fill: Callable[[BinaryIO], object], *, if_absent: bool = False) -> bool:
    """Creates ``target`` complete or not at all, durably; False if it exists and ``if_absent``.

    The content is made in a temporary file beside it, flushed to disk and then renamed (or linked, which fails where
    the name is taken); the folder is flushed too, so that the name outlives a power cut.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        with temp.open("xb") as file:
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


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalFiles:
    """Absolute paths on the local file system."""

    def filesystem(self) -> "FileSystem":
        from pyarrow.fs import LocalFileSystem  # slow to load, and needed by Ray and Arrow alone

        return LocalFileSystem()

    def read_bytes(self, path: str) -> bytes:
        with _explained("read", path):
            return Path(path).read_bytes()

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
        with _explained("write", Path(path).parent):
            write_whole(Path(path), lambda file: file.write(b"ok"))
            Path(path).unlink(missing_ok=True)

    def delta_options(self) -> dict[str, str]:
        return {}


def _info(path: str, name: str) -> FileInfo:
    status = os.stat(path)
    return FileInfo(
        name, status.st_size, f"{status.st_mtime_ns}-{status.st_ino}", datetime.fromtimestamp(status.st_mtime, UTC)
    )


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as opened:
        write_whole(target, lambda file: shutil.copyfileobj(opened, file, 1 << 20))
