"""Many writers at once, and lists of many styles."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.s3_server import S3

_ROOT = Path(__file__).parents[2]
_WRITERS, _EACH, _SHARED = 16, 50, 10
_WRITE = """
import sys
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.catalog.test_keeping import new_style

worker, each, shared = sys.argv[1], int(sys.argv[3]), int(sys.argv[4])
storage = Storage.open(sys.argv[2])
catalog = StyleCatalog.open(storage)
names = ["shared" if n < shared else f"own-{worker}" for n in range(each)]
styles = [new_style(storage, name, f"{worker} {n}".encode()) for n, name in enumerate(names)]
print("ready", flush=True)
sys.stdin.readline()
for style in styles:
    print(catalog.register(style))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sixteen_writers_make_eight_hundred_rows(s3: S3) -> None:
    storage = Storage.open(s3.bucket_uri())
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITE, str(worker), storage.uri, str(_EACH), str(_SHARED)],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for worker in range(_WRITERS)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=1000) for writer in writers]
    assert {errors for _, errors in said} == {""}
    told = [line for output, _ in said for line in output.split()]
    rows = StyleCatalog.open(storage).list()
    assert len(rows) == _WRITERS * _EACH == 800
    assert sorted(told) == sorted(map(str, rows))
    assert Counter(row.style_id for row in rows)["shared"] == _WRITERS * _SHARED
    for style_id, count in Counter(row.style_id for row in rows).items():
        assert [row.version for row in rows if row.style_id == style_id] == [*range(1, count + 1)]
