"""Remote files kept on a node's own disk: downloaded once, shared by all workers of this user on the node."""

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from cluster.storage.local import flush_folder
from cluster.storage.place import Storage
from cluster.storage.types import FileInfo, NotFound, StorageRefused

log = logging.getLogger(__name__)

Digests = str | Mapping[str, str]
"""sha256 of a file; or of files of a folder, by name."""


def fetch(uri: str, cache_dir: str | os.PathLike[str] | None = None, *, sha256: Digests | None = None) -> Path:
    """The local path of a file or folder: itself if it is local, else a copy below ``cache_dir``.

    The copy appears whole or not at all and is kept by its content's versions, so that what has changed is fetched
    again. Of several workers of one node, one downloads and the others wait. A copy with another ``sha256`` than given
    is downloaded again. ``cache_dir`` defaults to :func:`default_cache_dir`.

    Raises:
        NotFound: nothing is stored there.
        StorageRefused: what is stored there has another sha256.
        StorageError: it cannot be read.
    """
    storage = Storage.open(uri)
    if storage.is_local:
        if not os.path.exists(storage.path):
            raise NotFound(f"{storage.path}: no such file or folder")
        _check(Path(storage.path), sha256, storage.path)
        return Path(storage.path)
    whole = storage.stat() if storage.is_file() else None
    files = [whole] if whole else sorted(storage.walk(), key=lambda info: info.name)
    if not files:
        raise NotFound(f"{storage.uri}: no such file or folder")

    folder = owned(Path(cache_dir or default_cache_dir()) / _key(storage.uri, files))
    target = folder / storage.uri.rpartition("/")[2]
    if target.exists() and _differing(target, sha256) is None:
        return target
    with FileLock(folder / "lock"):
        if target.exists() and (name := _differing(target, sha256)) is not None:
            log.warning("%s: the cached copy of %s is damaged and is downloaded again", storage.uri, name or "it")
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        if not target.exists():
            _download(storage, None if whole else files, target)
            _check(target, sha256, storage.uri)
    return target


def default_cache_dir() -> Path:
    """``OSASIS_CACHE_DIR``, or a folder of this user below the system's temporary one.

    Raises:
        StorageRefused: the variable does not hold a local path.
    """
    if named := os.environ.get("OSASIS_CACHE_DIR"):
        if not (place := Storage.open(named)).is_local:
            raise StorageRefused(f"OSASIS_CACHE_DIR={named}: the cache is on this node's own disk; give a local path")
        return Path(place.path)
    return owned(Path(tempfile.gettempdir()) / f"osasis-cache-{os.getuid()}")


def owned(folder: Path) -> Path:
    """``folder``, made if it is not there, if it is this user's and nobody else can write to it; else a private one.

    What is in such a folder is loaded without a further look, so nobody else must be able to plant files there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # a link, too, whether it leads somewhere or not
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not others_write:
        return folder
    return _private(folder)


@lru_cache
def _private(instead_of: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="osasis-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning(
        "%s belongs to another user, can be written by others or is a link, so it is not used as cache: using %s for "
        "this run; remove it, or name a folder of your own in OSASIS_CACHE_DIR",
        instead_of, folder,
    )  # fmt: skip
    return folder


def _differing(path: Path, sha256: Digests | None) -> str | None:
    """The name of a file whose content is not as given, empty for ``path`` itself; None if there is none."""
    expected = {"": sha256} if isinstance(sha256, str) else dict(sha256 or {})
    for name, digest in expected.items():
        try:
            with (path / name if name else path).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return name
        except FileNotFoundError:
            continue  # said by who needs it
    return None


def _check(path: Path, sha256: Digests | None, where: str) -> None:
    if (name := _differing(path, sha256)) is not None:
        file = f"{where}/{name}" if name else where
        raise StorageRefused(f"{file}: cannot use it: its sha256 is not the one that was recorded; restore the file")


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
