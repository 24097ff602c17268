"""Stage "record": outcomes → committed rows of the manifest.

Takes FINISHED rows, whose files are durable; gives counts. Needs the manifest's storage. Failures that may not be the
inputs' fault are held back (:class:`jobs.streaming.failures.Streaks`); a commit that fails stops the run, and what it
held stays undecided.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from catalog.filters import Condition
from catalog.manifest import Manifest
from cluster.runtime.metrics import count
from jobs.streaming.failures import Streaks
from jobs.streaming.rows import Row
from jobs.streaming.variants import Variant

COMMIT_ROWS = 2000
COMMIT_SECONDS = 10.0
"""A group is committed when it has this many rows or the last commit is this old, whichever comes first."""

COMPACT_COMMITS = 200
"""Commits after which small files are joined, so that a long run's log stays short."""


class Record:
    """Makes outcomes manifest rows.

    Attributes:
        seen: statuses taken in, in (input, variant) pairs.
        counts: the same, as far as committed.
        seconds: that workers spent on them.
        flagged: rows taken in of which a condition holds.
    """

    def __init__(
        self,
        manifest: Manifest,
        variants: Sequence[Variant],
        *,
        run_id: str,
        seed: int,
        retrying: bool = False,
        flags: Sequence[Condition] = (),
        before_commit: Callable[[], None] = lambda: None,
        commit_seconds: float = COMMIT_SECONDS,
    ) -> None:
        """``before_commit`` raises where this run may not write any more."""
        self._manifest = manifest
        self._columns = {variant.label: variant.columns for variant in variants}
        self._hashes = {variant.params_hash for variant in variants}
        self._common = {"run_id": run_id, "seed": seed}
        self._retrying = retrying
        self._flags = flags
        self._before_commit = before_commit
        self._commit_seconds = commit_seconds
        self._streaks = Streaks()
        self._rows: list[Row] = []
        self._commits = 0
        self._committed_at = time.monotonic()
        self.seen: Counter[str] = Counter()
        self.seconds = 0.0
        self.counts: Counter[str] = Counter()
        self.flagged = 0

    def add(self, worker: str, outcomes: Sequence[Row]) -> None:
        """Record outcomes; commits when it is time. None of them only looks at the clock.

        Raises:
            RunStopped: too many in a row failed.
        """
        self._take(self._streaks.take(worker, outcomes))
        if len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._committed_at >= self._commit_seconds:
            self.flush()

    def flush(self) -> None:
        """Commit what is held, failures in doubt aside."""
        rows, self._rows = self._rows, []
        if rows:
            self._before_commit()
            self._manifest.append(rows)
            self.counts.update(row["status"] for row in rows)
            self._commits += 1
            if self._commits % COMPACT_COMMITS == 0:
                self._manifest.compact()
        self._committed_at = time.monotonic()

    def finish(self) -> None:
        """Commit everything, of a run that came to its end."""
        self._take(self._streaks.rest())
        self.flush()
        self._manifest.compact()

    def settle(self) -> None:
        """Remove rows that gave way to newer ones, those of a run that was killed before it could included."""
        if self._retrying:
            self._manifest.settle(self._hashes)

    def _take(self, outcomes: Sequence[Row]) -> None:
        for outcome in outcomes:
            self.seen[outcome["status"]] += 1
            count("osasis_pairs_total", status=outcome["status"])
            self.seconds += outcome["seconds"] or 0.0
            if outcome["error_type"]:
                count("osasis_failures_total", kind=outcome["error_type"])
            named = {name: value for name, value in outcome.items() if name != "variant"}
            holding = [f"{c.name}{c.op}{c.value}" for c in self._flags if c.holds(outcome.get(c.name))]
            if outcome["status"] == "done" and holding:
                named["flags"] = "; ".join(holding)
                self.flagged += 1
            self._rows.append(named | self._common | self._columns[outcome["variant"]])
