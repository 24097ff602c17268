"""Processes killed before and after each storage call that writes: the catalog is whole, and the next call succeeds.

On S3 every request to the server is a storage call, on a local disk every call of the C library that makes, moves or
removes a file or a folder, be it this project's or Delta Lake's. A process killed at one that only reads leaves what
the write before it has left.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import pytest

from catalog.store import StyleCatalog
from catalog.verify import Finding
from cluster.storage import Storage
from tests.support.catalog_changes import CHANGES
from tests.support.faulty_s3 import Action, FaultyS3, Request, faulty_s3
from tests.support.s3_server import S3

_ROOT = Path(__file__).parents[2]
_CHANGE = """
import ctypes
import sys
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.catalog_changes import CHANGES

uri, name, number, *kill = sys.argv[1:]
catalog = StyleCatalog.open(Storage.open(uri))
print("ready", flush=True)
sys.stdin.readline()
if kill:
    ctypes.CDLL(None).kill_at(*map(int, kill))
CHANGES[name].make(catalog, int(number))
"""


Kill = Callable[[StyleCatalog, str, int, int, bool], bool]
"""Makes the ``number``-th of a change in a process that dies at or after its ``at``-th write; False if it had fewer."""


def _start(catalog: StyleCatalog, name: str, number: int, *kill: int, **env: str) -> subprocess.Popen[str]:
    """A process that makes the change when it is told to go."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CHANGE, catalog.storage.uri, name, *map(str, (number, *kill))],
        cwd=_ROOT, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def _go(process: "subprocess.Popen[str]") -> bool:
    process.communicate("go\n", timeout=120)
    assert process.returncode in (0, -9)
    return process.returncode == -9


def _by_proxy(proxy: FaultyS3) -> Kill:
    def kill(catalog: StyleCatalog, name: str, number: int, at: int, after: bool) -> bool:
        process = _start(catalog, name, number)
        proxy.victim = process.pid
        action: Action = "kill-after" if after else "kill"

        def plan(request: Request) -> Action:
            return action if request.write == at else "pass"

        proxy.follow(plan)
        killed = _go(process)
        proxy.follow(lambda request: "pass")
        return killed

    return kill


def _by_library(library: Path) -> Kill:
    def kill(catalog: StyleCatalog, name: str, number: int, at: int, after: bool) -> bool:
        env = {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
        return _go(_start(catalog, name, number, at, int(after), **env))

    return kill


def _check_whole(catalog: StyleCatalog) -> None:
    assert [item for item in catalog.verify() if isinstance(item, Finding)] == []
    versions = Counter(row.style_id for row in catalog.list(deleted=True))
    assert set(versions.values()) <= {1}


def _kills(storage: Storage, name: str, points: Iterable[int], kill: Kill) -> int:
    """Kills before and after each of ``points``, as far as the change goes; returns how often."""
    change, number, kills = CHANGES[name], 0, 0
    for at in points:
        killed = False
        for after in (False, True):
            catalog = StyleCatalog.open(storage)
            change.prepare(catalog, number)
            killed = kill(catalog, name, number, at, after)
            kills += killed
            _check_whole(catalog)
            change.make(StyleCatalog.open(storage), number)
            assert change.check(catalog, number), f"{'after' if after else 'at'} write {at}"
            number += 1
        if not killed:
            break
    return kills


@pytest.fixture
def proxied(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    out = tmp_path_factory.mktemp("library") / "kill_at_call.so"
    source = _ROOT / "tests" / "support" / "kill_at_call.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", out, source, "-ldl"], check=True)
    return out


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_once_wherever_its_process_is_killed(s3: S3, name: str, proxied: FaultyS3) -> None:
    assert _kills(Storage.open(s3.bucket_uri()), name, count(), _by_proxy(proxied)) >= 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_on_disk_is_made_once_wherever_its_process_is_killed(name: str, library: Path, tmp_path: Path) -> None:
    assert _kills(Storage.open(tmp_path / "catalog"), name, count(), _by_library(library)) >= 4


def test_a_registration_killed_at_its_commit_is_made_once(s3: S3, proxied: FaultyS3) -> None:
    # After five files of the style, its mark and its Parquet file.
    assert _kills(Storage.open(s3.bucket_uri()), "register", [7], _by_proxy(proxied)) == 2


def test_a_registration_on_disk_killed_on_its_way_is_made_once(library: Path, tmp_path: Path) -> None:
    assert _kills(Storage.open(tmp_path / "catalog"), "register", [2, 5], _by_library(library)) == 4
