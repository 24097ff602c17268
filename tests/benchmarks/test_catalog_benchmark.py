"""benchmarks/catalog.py, small: the catalog and pyarrow answer alike, which it checks itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_catalog_answers_as_plain_pyarrow_does() -> None:
    command = [sys.executable, "benchmarks/catalog.py", "--styles=900", "--dim=8", "--repeats=1", "--writers=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for question in ("point lookup", "filtered list", "nearest embeddings", "first row on the screen"):
        assert question in done.stdout


def test_other_benchmarks_still_find_the_package_of_that_name() -> None:
    script = "import sys; sys.path.insert(0, 'benchmarks'); from catalog.store import StyleCatalog; import catalog; "
    script += "print(hasattr(catalog, '__path__'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
