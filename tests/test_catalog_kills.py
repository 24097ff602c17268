"""Processes killed before and after each storage call that writes: the catalog is whole, and the next call succeeds.

Every request to the S3 server is a storage call, be it this project's or Delta Lake's. A process killed at one that
only reads leaves what the write before it has left.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from catalog.store import StyleCatalog
from catalog.verify import Finding
from cluster.storage import Storage
from tests.conftest import S3
from tests.faulty_s3 import Action, FaultyS3, Request, faulty_s3
from tests.test_catalog_keeping import new_style

_ROOT = Path(__file__).parents[1]
_CHANGE = """
import sys
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.test_catalog_kills import CHANGES

catalog = StyleCatalog.open(Storage.open(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
CHANGES[sys.argv[2]].make(catalog, int(sys.argv[3]))
"""


@dataclass(frozen=True)
class Change:
    """``prepare`` makes the ``number``-th chance for a change, ``make`` makes it, ``check``: it was made once."""

    prepare: Callable[[StyleCatalog, int], object]
    make: Callable[[StyleCatalog, int], object]
    check: Callable[[StyleCatalog, int], bool]


def _kinds(catalog: StyleCatalog, style_id: str) -> Counter[str]:
    return Counter(event["kind"] for event in catalog.history(style_id))


def _add(catalog: StyleCatalog, number: int) -> None:
    catalog.register(new_style(catalog.storage, f"style-{number}", f"{number}".encode()))


def _status(catalog: StyleCatalog, number: int) -> list[str]:
    return [row.status for row in catalog.list(deleted=True) if row.style_id == f"style-{number}"]


def _add_and_delete(catalog: StyleCatalog, number: int) -> None:
    _add(catalog, number)
    catalog.delete(f"style-{number}")


CHANGES = {
    "register": Change(
        lambda catalog, number: new_style(catalog.storage, f"style-{number}", f"{number}".encode()),
        lambda catalog, number: _add(catalog, number),
        lambda catalog, number: _status(catalog, number) == ["ready"],
    ),
    "alias": Change(
        _add,
        lambda catalog, number: catalog.set_alias(f"style-{number}", "prod"),
        lambda catalog, number: (
            _kinds(catalog, f"style-{number}") == {"alias-set": 1} and catalog.show(f"style-{number}@prod").version == 1
        ),
    ),
    "delete": Change(
        _add,
        lambda catalog, number: catalog.delete(f"style-{number}") if _status(catalog, number) == ["ready"] else None,
        lambda catalog, number: (
            _kinds(catalog, f"style-{number}") == {"deleted": 1} and _status(catalog, number) == ["deleted"]
        ),
    ),
    "gc": Change(
        _add_and_delete,
        lambda catalog, number: catalog.gc(timedelta(0)),
        lambda catalog, number: (
            _kinds(catalog, f"style-{number}") == {"deleted": 1, "purging": 1, "purged": 1}
            and not catalog.storage.list_files(f"checkpoints/style-{number}")
        ),
    ),
    "optimize": Change(
        _add,
        lambda catalog, number: catalog.optimize(timedelta(days=7)),
        lambda catalog, number: _status(catalog, number) == ["ready"],
    ),
}


def _killed(proxy: FaultyS3, catalog: StyleCatalog, name: str, number: int, at: int, action: Action) -> bool:
    """Makes the change in a process that dies at its ``at``-th request that writes; False if it had fewer."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CHANGE, catalog.storage.uri, name, str(number)],
        cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    proxy.victim = process.pid

    def plan(request: Request) -> Action:
        return action if request.write == at else "pass"

    proxy.follow(plan)
    process.communicate("go\n", timeout=120)
    proxy.follow(lambda request: "pass")
    assert process.returncode in (0, -9)
    return process.returncode == -9


def _check_whole(catalog: StyleCatalog) -> None:
    assert [item for item in catalog.verify() if isinstance(item, Finding)] == []
    versions = Counter(row.style_id for row in catalog.list(deleted=True))
    assert set(versions.values()) <= {1}


def _kill(s3: S3, name: str, monkeypatch: pytest.MonkeyPatch, points: Iterable[int]) -> int:
    """Kills before and after each of ``points``, as far as the change goes; returns how often."""
    change, number, kills = CHANGES[name], 0, 0
    with faulty_s3(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        storage = Storage.open(s3.bucket_uri())
        actions: tuple[Action, ...] = ("kill", "kill-after")
        for at in points:
            killed = False
            for action in actions:
                catalog = StyleCatalog.open(storage)
                change.prepare(catalog, number)
                killed = _killed(proxy, catalog, name, number, at, action)
                kills += killed
                _check_whole(catalog)
                change.make(StyleCatalog.open(storage), number)
                assert change.check(catalog, number), f"{action} at write {at}"
                number += 1
            if not killed:
                break
    return kills


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_once_wherever_its_process_is_killed(
    s3: S3, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _kill(s3, name, monkeypatch, count()) >= 4


def test_a_registration_killed_at_its_commit_is_made_once(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _kill(s3, "register", monkeypatch, [7]) == 2  # after five files of the style, its mark and its Parquet file
