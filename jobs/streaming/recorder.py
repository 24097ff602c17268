"""From finished rows to manifest rows: counts them and commits them in groups."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from catalog.manifest import Manifest
from jobs.streaming.variants import Variant

COMMIT_ROWS = 2000
COMMIT_SECONDS = 10.0
"""A group is committed when it has this many rows or the last commit is this old, whichever comes first."""


class Recorder:
    """Takes FINISHED rows, whose images are durable, and makes them manifest rows.

    Attributes:
        seen: statuses taken in, in (input, variant) pairs.
        counts: the same, as far as committed.
    """

    def __init__(
        self, manifest: Manifest, variants: Sequence[Variant], *, run_id: str, seed: int, replacing: bool
    ) -> None:
        self._manifest = manifest
        self._columns = {variant.label: variant.columns for variant in variants}
        self._common = {"run_id": run_id, "seed": seed}
        self._replacing = replacing
        self._rows: list[dict[str, Any]] = []
        self._committed_at = time.monotonic()
        self.seen: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def add(self, finished: list[dict[str, Any]]) -> None:
        """Record rows of FINISHED; commits when it is time. An empty list only looks at the clock."""
        for row in finished:
            about = {name: value for name, value in row.items() if name != "outcomes"}
            for outcome in row["outcomes"]:
                self.seen[outcome["status"]] += 1
                named = {name: value for name, value in outcome.items() if name != "style"}
                self._rows.append(about | named | self._common | self._columns[outcome["style"]])
        if len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what is held."""
        rows, self._rows = self._rows, []
        if rows:
            (self._manifest.replace if self._replacing else self._manifest.append)(rows)
            self.counts.update(row["status"] for row in rows)
        self._committed_at = time.monotonic()
