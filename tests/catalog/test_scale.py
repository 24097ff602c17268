"""Many writers at once, and lists of many styles."""

from collections import Counter
from pathlib import Path

import pytest

from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.racing import race
from tests.support.s3_server import S3

_ROOT = Path(__file__).parents[2]
_WRITERS, _EACH, _SHARED = 16, 50, 10
_WRITE = """
import sys
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.racing import wait_for_start
from tests.support.styles import trained_style

worker, each, shared = sys.argv[1], int(sys.argv[3]), int(sys.argv[4])
storage = Storage.open(sys.argv[2])
catalog = StyleCatalog.open(storage)
names = ["shared" if n < shared else f"own-{worker}" for n in range(each)]
styles = [trained_style(storage, name, f"{worker} {n}".encode()) for n, name in enumerate(names)]
wait_for_start()
for style in styles:
    print(catalog.register(style))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sixteen_writers_make_eight_hundred_rows(s3: S3) -> None:
    storage = Storage.open(s3.bucket_uri())
    outputs = race(_WRITE, [(worker, storage.uri, _EACH, _SHARED) for worker in range(_WRITERS)], timeout=1000)
    told = [line for output in outputs for line in output.split()]
    rows = StyleCatalog.open(storage).list()
    assert len(rows) == _WRITERS * _EACH == 800
    assert sorted(told) == sorted(map(str, rows))
    assert Counter(row.style_id for row in rows)["shared"] == _WRITERS * _SHARED
    for style_id, count in Counter(row.style_id for row in rows).items():
        assert [row.version for row in rows if row.style_id == style_id] == [*range(1, count + 1)]
