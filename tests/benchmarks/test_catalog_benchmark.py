"""benchmarks/catalog_scale.py, small: the catalog and pyarrow answer alike, which it checks itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_catalog_answers_as_plain_pyarrow_does() -> None:
    flags = ["--styles=900", "--dim=8", "--repeats=1", "--writers=0"]
    command = [sys.executable, "-m", "benchmarks.catalog_scale", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for question in ("point lookup", "filtered list", "nearest embeddings", "first row on the screen"):
        assert question in done.stdout
