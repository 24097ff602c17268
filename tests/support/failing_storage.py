"""Storage that fails in the middle, that tables cannot be kept in, or whose files somebody else may have put there."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.storage import Storage, StorageError, StorageRefused, StorageUnavailable, cache
from tests.support.flat_s3 import BUCKET, Answer, Asked, refusal
from tests.support.storage_environments import KEYS, Environment, refused, works

Fault = Callable[[Asked], Answer | None]


def _fails(env: Environment, fault: Fault, words: str, kind: type[StorageError], *clients: str) -> None:
    """From one moment on, every client says why; once it is over, all work."""
    server = env.server()
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint)
    works()
    server.fault = fault
    refused(words, *clients, kind=kind)
    server.fault = lambda asked: None
    works()


def credentials_that_expire(env: Environment) -> None:
    _fails(env, lambda asked: refusal(400, "ExpiredToken"), "expired; renew them", StorageUnavailable)


def a_bucket_that_goes(env: Environment) -> None:
    _fails(env, lambda asked: refusal(404, "NoSuchBucket"), "no such bucket; create it", StorageRefused)


def access_that_is_withdrawn(env: Environment) -> None:
    _fails(env, lambda asked: refusal(403, "AccessDenied"), "access denied; check the credentials", StorageRefused)


def a_server_that_stays_overloaded(env: Environment) -> None:
    _fails(env, lambda asked: refusal(503, "SlowDown"), "overloaded; give the same command", StorageUnavailable)


def connections_that_break(env: Environment) -> None:
    _fails(env, lambda asked: Answer(0), "no answer; check AWS_ENDPOINT_URL", StorageUnavailable)


def a_commit_that_is_refused(env: Environment) -> None:
    def fault(asked: Asked) -> Answer | None:
        return refusal(403, "AccessDenied") if asked.method == "PUT" and "_delta_log" in asked.key else None

    _fails(env, fault, "place/table: cannot write: access denied", StorageRefused, "delta")


def an_archived_object(env: Environment) -> None:
    def fault(asked: Asked) -> Answer | None:
        return refusal(403, "InvalidObjectState") if asked.method == "GET" and asked.key.endswith(".txt") else None

    _fails(env, fault, "archived; restore it first", StorageRefused, "ours", "arrow")


# Where tables cannot be kept


def _probe(uri: str | Path, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught:
        Storage.open(uri).check_writable()
    assert str(uri) in str(caught.value)


def a_disk_without_hard_links(env: Environment) -> None:
    def link(source: object, target: object, **_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    env.variables.setattr(os, "link", link)
    _probe(env.folder / "store", "makes no hard links .*by which Delta Lake commits; choose a local disk")
    assert not (env.folder / "store").exists()


def a_disk_whose_links_overwrite(env: Environment) -> None:
    env.variables.setattr(os, "link", lambda source, target: Path(target).write_bytes(b""))
    _probe(env.folder / "store", "concurrent commits would be lost")
    assert not (env.folder / "store").exists()


def a_server_that_ignores_conditions(env: Environment) -> None:
    server = env.server()

    def fault(asked: Asked) -> Answer | None:
        return Answer(200, headers={"ETag": '"x"'}) if asked.headers.get("if-none-match") else None

    server.fault = fault
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint)
    _probe(f"s3://{BUCKET}/place", "ignores If-None-Match .*concurrent commits would be lost")
    assert server.objects == {}


def a_server_without_conditions(env: Environment) -> None:
    server = env.server()
    server.fault = lambda asked: refusal(501, "NotImplemented") if asked.headers.get("if-none-match") else None
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint)
    _probe(f"s3://{BUCKET}/place", "does not implement this; use another server")


def a_full_disk(env: Environment) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = Storage.open(env.folder / "store")
    place.write_bytes("before", b"whole")
    env.variables.setattr(os, "fsync", fsync)
    with pytest.raises(StorageUnavailable, match=r"store/a: cannot write: No space left .*what was written before is"):
        place.write_bytes("a", b"x")
    assert place.list_files() == ["before"]
    assert [path.name for path in (env.folder / "store").iterdir()] == ["before"]


# The cache


def _planted(env: Environment, plant: Callable[[Path], None]) -> None:
    """A folder of the name that is looked for is there first, with a file in it: neither is used."""
    env.variables.setattr(tempfile, "tempdir", str(env.folder))
    env.variables.delenv("OSASIS_CACHE_DIR", raising=False)
    expected = env.folder / f"osasis-cache-{os.getuid()}"
    plant(expected)
    found = cache.default_cache_dir()
    assert found != expected
    assert (found.lstat().st_uid, found.lstat().st_mode & 0o777) == (os.getuid(), 0o700)
    server = env.server()
    server.objects["file"] = b"ours"
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint)
    assert cache.fetch(f"s3://{BUCKET}/file").read_bytes() == b"ours"
    assert not list(expected.glob("*/file"))


def a_cache_that_another_user_made(env: Environment) -> None:
    def plant(folder: Path) -> None:
        folder.mkdir(mode=0o777)
        mine = os.getuid()
        real = Path.lstat

        def lstat(path: Path) -> os.stat_result:
            found = real(path)
            return os.stat_result((*found[:4], mine + 1, *found[5:])) if path == folder else found

        env.variables.setattr(Path, "lstat", lstat)

    _planted(env, plant)


def a_cache_that_is_a_link(env: Environment) -> None:
    def plant(folder: Path) -> None:
        (env.folder / "theirs").mkdir()
        folder.symlink_to(env.folder / "theirs")

    _planted(env, plant)


def a_cache_that_all_can_write_to(env: Environment) -> None:
    def plant(folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o777)

    _planted(env, plant)


def a_file_planted_in_the_cache(env: Environment) -> None:
    """Below a folder that the user named and that all can write to, such as /tmp: the file's own folder is checked."""
    server = env.server()
    server.objects["file"] = b"ours"
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint, OSASIS_CACHE_DIR=str(env.folder / "cache"))
    copy = cache.fetch(f"s3://{BUCKET}/file")
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    copy.write_bytes(b"planted")
    copy.parent.chmod(0o777)
    assert cache.fetch(f"s3://{BUCKET}/file").read_bytes() == b"ours"
