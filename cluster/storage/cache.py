"""Remote files kept on a node's own disk: downloaded once, shared by all workers of the node."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from cluster.storage import FileInfo, NotFound, Storage
from cluster.storage.local import flush_folder


def fetch(uri: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local path of a file or folder: itself if it is local, else a copy below ``cache_dir``.

    The copy appears whole or not at all and is kept by its content's versions, so that what has changed is fetched
    again. Of several workers of one node, one downloads and the others wait. ``cache_dir`` defaults to
    ``OSASIS_CACHE_DIR`` or a folder of this user below the system's temporary one.

    Raises:
        NotFound: nothing is stored there.
        StorageError: it cannot be read.
    """
    storage = Storage.open(uri)
    if storage.is_local:
        if not os.path.exists(storage.path):
            raise NotFound(f"{storage.path}: no such file or folder")
        return Path(storage.path)
    whole = storage.stat()
    files = [whole] if whole else sorted(storage.walk(), key=lambda info: info.name)
    if not files:
        raise NotFound(f"{storage.uri}: no such file or folder")

    folder = Path(cache_dir or default_cache_dir()) / _key(storage.uri, files)
    target = folder / storage.uri.rpartition("/")[2]
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not target.exists():
                _download(storage, None if whole else files, target)
    return target


def default_cache_dir() -> Path:
    """Not shared between users: one could otherwise plant files for another."""
    named = os.environ.get("OSASIS_CACHE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"osasis-cache-{os.getuid()}"


def _key(uri: str, files: list[FileInfo]) -> str:
    digest = hashlib.sha256(uri.encode())
    for info in files:
        digest.update(f"\0{info.name}\0{info.size}\0{info.version}".encode())
    return digest.hexdigest()


def _download(storage: Storage, files: list[FileInfo] | None, target: Path) -> None:
    """``files`` of the folder, or the one file that ``storage`` is, if None."""
    if files is None:
        storage.download_file("", target)
        return
    temp = target.parent / "incomplete"
    shutil.rmtree(temp, ignore_errors=True)  # of a worker that died; the lock says that nobody works on it
    for info in files:
        storage.download_file(info.name, temp / info.name)
    os.replace(temp, target)
    flush_folder(target.parent)
