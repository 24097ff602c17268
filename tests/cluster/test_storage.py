"""One behaviour for every kind of storage."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import FileSelector

from cluster.storage import TEMP_PREFIX, NotFound, Storage, StorageError, check_name, normalize_uri
from cluster.storage import s3 as s3_objects
from cluster.storage.cache import fetch
from tests.support.flat_s3 import BUCKET, FlatS3, flat_s3
from tests.support.s3_server import S3

_ROOT = Path(__file__).parents[2]


def test_written_bytes_are_read_back(storage: Storage) -> None:
    assert storage.write_bytes("a/ü b.bin", b"\0one")
    assert storage.write_bytes("a/ü b.bin", b"two\xff")
    assert storage.read_bytes("a/ü b.bin") == b"two\xff"
    assert storage.size("a/ü b.bin") == 4
    assert storage.exists("a/ü b.bin")
    assert not storage.exists("a")
    assert Storage.open(storage.child_uri("a/ü b.bin")).read_bytes() == b"two\xff"


def test_an_empty_file_is_a_file(storage: Storage) -> None:
    storage.write_bytes("empty", b"")
    assert storage.exists("empty")
    assert storage.read_bytes("empty") == b""
    assert storage.sha256("empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_missing_files_are_said_to_be_missing(storage: Storage, tmp_path: Path) -> None:
    operations: list[Callable[[], object]] = [
        lambda: storage.read_bytes("none"),
        lambda: storage.size("none"),
        lambda: storage.sha256("none"),
        lambda: storage.download_file("none", tmp_path / "copy"),
    ]
    for operation in operations:
        with pytest.raises(NotFound, match=r"none.*no such file"):
            operation()
    assert not (tmp_path / "copy").exists()
    assert storage.stat("none") is None
    assert storage.list_files("none") == []
    storage.delete("none")


def test_listing_is_sorted_relative_and_bounded_by_folders(storage: Storage) -> None:
    for name in ("b.png", "a/2.png", "a/1.png", "a/x y/é+%20&?.png", "ab/3.png"):
        storage.write_bytes(name, b"x")
    assert storage.list_files() == ["a/1.png", "a/2.png", "a/x y/é+%20&?.png", "ab/3.png", "b.png"]
    assert storage.list_files("a") == storage.child("a").list_files() == ["1.png", "2.png", "x y/é+%20&?.png"]
    assert storage.list_files("a", recursive=False) == ["1.png", "2.png"]
    storage.delete("a/1.png")
    assert storage.list_files("a", recursive=False) == ["2.png"]


def test_files_are_copied_in_and_out(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3 << 20))
    storage.upload_file(source, "deep/copy.bin")
    storage.download_file("deep/copy.bin", tmp_path / "new" / "back.bin")
    assert (tmp_path / "new" / "back.bin").read_bytes() == source.read_bytes()
    assert storage.list_files() == ["deep/copy.bin"]


def test_of_racing_writers_exactly_one_creates_the_file(storage: Storage) -> None:
    storage.write_bytes("warm", b"")
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return storage.write_bytes("lock", f"writer {number}".encode(), if_absent=True)

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, created in enumerate(pool.map(create, range(8))) if created]
    assert len(won) == 1
    assert storage.read_bytes("lock") == f"writer {won[0]}".encode()
    assert storage.list_files() == ["lock", "warm"]


def test_storage_travels_without_its_connection(storage: Storage) -> None:
    storage.write_bytes("a", b"1")
    copy = pickle.loads(pickle.dumps(storage))  # noqa: S301
    assert copy == storage
    assert copy.read_bytes("a") == b"1"
    for secret in (os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_ACCESS_KEY_ID")):
        assert not secret or secret.encode() not in pickle.dumps(storage)


def test_arrow_reads_and_writes_the_same_place(storage: Storage) -> None:
    storage.write_bytes("first", b"")
    pq.write_table(pa.table({"a": [1, 2]}), f"{storage.path}/t.parquet", filesystem=storage.filesystem)
    assert storage.exists("t.parquet")
    assert pq.read_table(f"{storage.path}/t.parquet", filesystem=storage.filesystem).to_pydict() == {"a": [1, 2]}


def test_writable_storage_passes_the_check_and_stays_empty(storage: Storage) -> None:
    storage.check_writable()
    assert storage.list_files() == []


def test_a_killed_writer_leaves_nothing_visible(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    storage.write_bytes("kept", b"old")
    script = (
        "import os, signal, sys\n"
        "from cluster.storage import Storage\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Storage.open(sys.argv[1]).write_bytes(sys.argv[2], b'new')\n"
    )
    for name in ("kept", "fresh"):
        killed = subprocess.run([sys.executable, "-c", script, str(tmp_path), name], cwd=_ROOT, timeout=60)
        assert killed.returncode == -signal.SIGKILL
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(TEMP_PREFIX)]) == 2
    assert storage.list_files() == ["kept"]
    assert storage.read_bytes("kept") == b"old"


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/below.*cannot write"):
        Storage.open(tmp_path / "file" / "below").check_writable()


_EMPTY_PARTS = ["/etc/passwd", "a//b", "a/"]


@pytest.mark.parametrize("name", ["..", "a/../b", ".", "a\0b", TEMP_PREFIX + "x", "a/./b", *_EMPTY_PARTS])
def test_names_that_leave_their_place_are_refused(storage: Storage, name: str) -> None:
    operations: list[Callable[[str], object]] = [storage.child, lambda name: storage.write_bytes(name, b"")]
    if storage.is_local or name not in _EMPTY_PARTS:  # S3 has such keys
        operations += [storage.read_bytes, storage.exists, storage.list_files, storage.delete]
    for operation in operations:
        with pytest.raises(StorageError, match="cannot name a file"):
            operation(name)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=80))
def test_a_hostile_name_is_kept_exactly_or_refused(tmp_path: Path, name: str) -> None:
    storage = Storage.open(tmp_path / "inside")
    try:
        storage.write_bytes(name, b"x")
    except StorageError:
        assert storage.list_files() == []
    else:
        assert storage.list_files() == [name]
        assert Path(os.path.realpath(tmp_path / "inside" / name)).is_relative_to(tmp_path / "inside")
        storage.delete(name)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["inside"])


@settings(deadline=None, max_examples=25)
@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_a_hostile_key_is_kept_exactly_or_refused(s3_place: Storage, name: str) -> None:
    try:
        s3_place.write_bytes(name, b"x")
    except StorageError:
        return
    assert s3_place.read_bytes(name) == b"x"
    s3_place.delete(name)
    assert not s3_place.exists(name)


@pytest.fixture(scope="module")
def s3_place(s3: S3) -> Storage:
    return Storage.open(s3.bucket_uri())


@given(st.text(max_size=30))
def test_a_checked_name_cannot_climb(name: str) -> None:
    try:
        checked = check_name(name)
    except StorageError:
        return
    assert os.path.normpath(f"/base/{checked}").startswith("/base/")


@pytest.mark.parametrize(
    ("given_uri", "normal"),
    [
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("file:///tmp/x%20y", "/tmp/x y"),
        ("/tmp/a/../b/", "/tmp/b"),
    ],
)
def test_uris_are_normalized(given_uri: str, normal: str) -> None:
    assert normalize_uri(given_uri) == normal


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlatS3]:
    """A server that keeps keys as they are."""
    with flat_s3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        yield server


def test_keys_that_only_others_write_are_listed_read_and_deleted(flat: FlatS3) -> None:
    names = ["/a.png", "b//c.png", "b\\d.png", "e/"]
    flat.objects |= {f"in/{name}": name.encode() for name in names}
    place = Storage.open(f"s3://{BUCKET}/in")
    assert place.list_files() == names[:3]  # a key that ends in a slash marks a folder
    for name in names[:3]:
        assert place.read_bytes(name) == Storage.open(f"s3://{BUCKET}/in/{name}").read_bytes() == name.encode()
        assert place.size(name) == len(name)
        with pytest.raises(StorageError, match="cannot name a file"):
            place.write_bytes(name, b"")
        with pytest.raises(StorageError, match="cannot name a file"):
            Storage.open(f"s3://{BUCKET}/in/{name}").write_bytes("below", b"")
        place.delete(name)
    assert list(flat.objects) == ["in/e/"]
    with pytest.raises(StorageError, match="cannot hold tables"):
        Storage.open(f"s3://{BUCKET}/in//x").delta_uri("table")


def test_an_empty_object_named_like_a_folder_hides_none_of_its_files(flat: FlatS3, tmp_path: Path) -> None:
    flat.objects |= {"marker": b"", "marker/0.png": b"x", "marker/": b"", "empty": b""}
    folder = Storage.open(f"s3://{BUCKET}/marker/")
    assert not folder.is_file()
    assert folder.list_files() == ["0.png"]
    assert (fetch(folder.uri, tmp_path) / "0.png").read_bytes() == b"x"
    assert Storage.open(f"s3://{BUCKET}/empty").is_file()


def test_a_file_is_read_at_any_position(storage: Storage) -> None:
    storage.write_bytes("a", b"0123456789")
    with storage.open_file("a") as file:
        assert file.read(3) == b"012"
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"89"
        assert file.read() == b""
        file.seek(5)
        assert file.read(2) == b"56"


def test_local_files_with_a_backslash_in_their_name_are_read(tmp_path: Path) -> None:
    (tmp_path / "a\\b.png").write_bytes(b"x")
    assert Storage.open(tmp_path).list_files() == ["a\\b.png"]
    assert Storage.open(tmp_path).read_bytes("a\\b.png") == b"x"


def test_arrow_sees_folders_and_files_as_ray_train_needs_them(s3_place: Storage) -> None:
    place = s3_place.child("arrow")
    files = pickle.loads(pickle.dumps(place.filesystem))  # noqa: S301
    assert files == place.filesystem
    for name in ("x/1.txt", "x/y/2.txt", "z.txt"):
        with files.open_output_stream(f"{place.path}/{name}") as file:
            file.write(b"12345")
    kinds = {info.base_name: info.type.name for info in files.get_file_info(FileSelector(place.path))}
    assert kinds == {"x": "Directory", "z.txt": "File"}
    everything = files.get_file_info(FileSelector(place.path, recursive=True))
    assert sorted(info.base_name for info in everything) == ["1.txt", "2.txt", "x", "y", "z.txt"]
    known = files.get_file_info([f"{place.path}/z.txt", f"{place.path}/x", f"{place.path}/none"])
    assert [info.type.name for info in known] == ["File", "Directory", "NotFound"]
    assert known[0].size == 5
    with pytest.raises(FileNotFoundError):
        files.get_file_info(FileSelector(f"{place.path}/none"))
    with pytest.raises(FileNotFoundError):
        files.open_input_file(f"{place.path}/none")
    files.move(f"{place.path}/z.txt", f"{place.path}/w.txt")
    files.delete_dir(f"{place.path}/x")
    assert place.list_files() == ["w.txt"]


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage.open("./runs").uri == str(tmp_path / "runs")


@pytest.mark.parametrize("uri", ["", "gs://b/x", "s3://", "s3:///x", "s3://b/a/../c", "a\0b"])
def test_bad_uris_are_refused(uri: str) -> None:
    with pytest.raises(StorageError):
        normalize_uri(uri)


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError, match="no credentials") as caught:
        normalize_uri("s3://AKIA:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_credentials_in_an_endpoint_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://me:hunter2@127.0.0.1:9")
    with pytest.raises(StorageError, match="without user name") as caught:
        Storage.open("s3://bucket/x").check_writable()
    assert "hunter2" not in str(caught.value)


def test_a_missing_bucket_is_named(s3: S3) -> None:
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/x: cannot write.*no such bucket"):
        Storage.open("s3://no-such-bucket/x").check_writable()


def test_wrong_credentials_are_said_within_seconds(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-at-all")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as caught:
        Storage.open("s3://osasis-tests/x").check_writable()
    assert "not-the-secret" not in str(caught.value)


def test_a_silent_endpoint_is_said_within_seconds(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://bucket/x.*127.0.0.1:9.*AWS_ENDPOINT_URL"):
        Storage.open("s3://bucket/x").check_writable()
    assert time.monotonic() - start < 15


def test_opening_storage_imports_neither_ray_nor_torch() -> None:
    script = "import sys, cluster.storage.s3, cluster.storage.cache; print({'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"


def test_fetch_returns_local_files_as_they_are(tmp_path: Path) -> None:
    assert fetch(str(tmp_path), tmp_path / "cache") == tmp_path
    with pytest.raises(NotFound):
        fetch(str(tmp_path / "none"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_fetch_downloads_once_and_again_when_content_changed(
    s3_place: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = s3_place.child("base")
    base.write_bytes("base.json", b"{}")
    base.write_bytes("parts/unet.bin", b"weights")
    downloads: list[str] = []
    real = s3_objects.S3Objects.download_file

    def counted(self: s3_objects.S3Objects, path: str, local_path: Path) -> None:
        downloads.append(path)
        real(self, path, local_path)

    monkeypatch.setattr(s3_objects.S3Objects, "download_file", counted)
    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(lambda _: fetch(base.uri, tmp_path), range(6)))
    (folder,) = folders
    assert (folder / "parts" / "unet.bin").read_bytes() == b"weights"
    assert len(downloads) == 2

    base.write_bytes("parts/unet.bin", b"changed")
    assert (fetch(base.uri, tmp_path) / "parts" / "unet.bin").read_bytes() == b"changed"
    assert fetch(base.child_uri("base.json"), tmp_path).read_bytes() == b"{}"
    with pytest.raises(NotFound):
        fetch(s3_place.child_uri("nothing"), tmp_path)


def test_a_cached_file_that_is_damaged_is_downloaded_again(s3_place: Storage, tmp_path: Path) -> None:
    base = s3_place.child("checked")
    base.write_bytes("weights", b"weights")
    digests = {"weights": hashlib.sha256(b"weights").hexdigest()}
    copy = fetch(base.uri, tmp_path, sha256=digests) / "weights"
    copy.write_bytes(b"another")
    assert (fetch(base.uri, tmp_path, sha256=digests) / "weights").read_bytes() == b"weights"

    file, digest = base.child_uri("weights"), digests["weights"]
    fetch(file, tmp_path, sha256=digest).write_bytes(b"another")
    assert fetch(file, tmp_path, sha256=digest).read_bytes() == b"weights"


def test_a_stored_file_with_another_sha256_is_not_used(storage: Storage, tmp_path: Path) -> None:
    storage.write_bytes("weights", b"another")
    with pytest.raises(StorageError, match=r"weights: cannot use it: its sha256"):
        fetch(storage.child_uri("weights"), tmp_path, sha256=hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(StorageError, match=r"weights: cannot use it: its sha256"):
        fetch(storage.uri, tmp_path, sha256={"weights": hashlib.sha256(b"weights").hexdigest()})
