"""The style catalog at size: ``python benchmarks/catalog.py --styles 100000``; see benchmarks/catalog_questions.py."""

import sys
from importlib import import_module
from pathlib import Path

# A script's own folder stands first on its path, where this file hides the package of the same name.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    import_module("cluster.commandline.cli").run_job(import_module("benchmarks.catalog_questions").main)
elif __name__ == "catalog":  # imported by another script of this folder, which means the package
    del sys.modules["catalog"]
    import_module("catalog")
