"""Measures a demo's pictures: the style changed them, the structure remained. Exits with 1 where they did not.

Measures (osasis/metrics/judge.py) and thresholds, per style, means over its pictures:
- style: distance to the reference, relative to the photographs' own: at most 0.95 of colour transfer's;
- change: mean absolute difference from the photographs, in [-1, 1]: above 0.05;
- structure: distance of self-similarities from the photographs': at most 0.11;
- edges: correlation with the photographs': at least 0.85.
"""

import sys
from pathlib import Path

from catalog.manifest import Manifest
from catalog.store import StyleCatalog
from cluster.storage import Storage
from jobs.shared.gallery import read_gallery
from jobs.shared.measuring import measure
from osasis.metrics import Measures, load_judge

MOST_STYLE, LEAST_CHANGE, MOST_STRUCTURE, LEAST_EDGES = 0.95, 0.05, 0.11, 0.85


def figures(measures: Measures) -> str:
    return f"style {measures.style:.2f}, structure {measures.structure:.3f}, edges {measures.edges:.2f}"


def main(storage: Storage) -> int:
    columns = ["input_uri", "style_id", "version", "output_uri", "transform"]
    rows = Manifest(storage.child("stylized")).rows(columns, status="done")
    versions = StyleCatalog.open(storage).resolve("all")
    measured = measure(read_gallery(rows, versions), load_judge())
    bad = 0
    for m in measured:
        good = (
            m.ours.style <= MOST_STYLE * m.color_transfer.style
            and m.change > LEAST_CHANGE
            and m.ours.structure <= MOST_STRUCTURE
            and m.ours.edges >= LEAST_EDGES
        )
        bad += not good
        print(f"{m.style}: {m.pictures} pictures, {figures(m.ours)}, change {m.change:.2f}: {'good' if good else 'BAD'}"
              f" (colour transfer: {figures(m.color_transfer)})")  # fmt: skip
    return int(bad > 0 or len(measured) != len(versions) or len(versions) != 2)


if __name__ == "__main__":
    sys.exit(main(Storage.open(Path(sys.argv[1]))))
