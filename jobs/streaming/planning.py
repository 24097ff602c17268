"""Stage "plan": all inputs, less what the manifest has decided, cut into chunks.

Takes inputs as they are listed; gives WORK rows with the labels of the variants that each lacks. Needs the manifest,
which is read once a run. Counts what was decided before.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.decided import STATUSES, UNDECIDED, Decided
from catalog.manifest import Manifest
from jobs.streaming.listing import Item
from jobs.streaming.rows import Row
from jobs.streaming.variants import Variant

_GROUP = 8192
"""Inputs compared with the manifest at once."""

_CHUNK_BYTES = 64 << 20
"""Of decoded pixels in a chunk."""

_FAILED = STATUSES.index("failed")


@dataclass
class Tally:
    """Counts of inputs, and of (input, variant) pairs by what was decided before and now."""

    inputs: int = 0
    duplicates: int = 0
    """Inputs named more than once in a table; each is done once."""
    flagged: int = 0
    """Rows decided now that --flag marks."""
    listed: bool = False
    """Whether ``inputs`` are all there are."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files of a folder that are no inputs, by reason."""
    before: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """For the run record: all pairs of this command by status, whichever run decided them."""
        total = self.before + self.now
        statuses = {status: total[status] for status in STATUSES}
        passed_over = {f"passed over, {reason}": count for reason, count in self.passed_over.items()}
        known = {"inputs": self.inputs, "duplicates": self.duplicates, **passed_over}
        return known | statuses | {"decided_before": self.before.total()}

    def check(self, variants: int) -> None:
        """Of a run that came to its end.

        Raises:
            RuntimeError: pairs were lost or decided twice; a defect of the program.
        """
        pairs, outcomes = (self.inputs - self.duplicates) * variants, (self.before + self.now).total()
        if outcomes != pairs:
            raise RuntimeError(f"{pairs} pairs of input and variant, but {outcomes} outcomes: {self.counts()}")


@dataclass(frozen=True)
class Plan:
    """Compares inputs with a manifest."""

    manifest: Manifest
    variants: tuple[Variant, ...]
    retry_failed: bool

    def __call__(self, items: Iterable[Item], tally: Tally, *, unique: bool) -> Iterator[Row]:
        """WORK of the inputs that lack a variant; the rest is counted. ``unique``: no input comes twice."""
        decided = Decided(self.manifest, [variant.pair for variant in self.variants])
        seen = None if unique else Seen()
        stream = iter(items)
        while group := list(islice(stream, _GROUP)):
            statuses, first, second = decided.of(pa.array([item.uri for item in group]))
            tally.inputs += len(group)
            if seen:
                new = seen.new(first, second)
                tally.duplicates += len(group) - len(new)
                group, statuses = [group[i] for i in new], statuses[new]
            missing = statuses == UNDECIDED
            if self.retry_failed:
                missing |= statuses == _FAILED
            for number, count in zip(*np.unique(statuses[~missing], return_counts=True), strict=True):
                tally.before[STATUSES[number]] += int(count)
            for i in np.flatnonzero(missing.any(axis=1)):
                yield self._work(group[i], missing[i])
        tally.listed = True

    def _work(self, item: Item, missing: npt.NDArray[np.bool_]) -> Row:
        labels = [self.variants[i].label for i in np.flatnonzero(missing)]
        return {"input_uri": item.uri, "key": item.key, "locator": item.locator, "missing": labels}


class Seen:
    """Inputs that were met, in a file that is gone when this is: memory stays small whatever their number."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._table.execute("PRAGMA cache_size = -65536")
        self._table.execute(
            "CREATE TABLE seen (first INTEGER, second INTEGER, PRIMARY KEY (first, second)) WITHOUT ROWID"
        )

    def new(self, first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> list[int]:
        """Places of the inputs, by their two hashes, that were not met before; they are remembered."""
        signed = zip(first.view(np.int64).tolist(), second.view(np.int64).tolist(), strict=True)
        add, added = "INSERT OR IGNORE INTO seen VALUES (?, ?)", []
        self._table.execute("BEGIN")
        for i, pair in enumerate(signed):
            if self._table.execute(add, pair).rowcount:
                added.append(i)
        self._table.execute("COMMIT")
        return added


def chunks(work: Iterable[Row], most: int, workers: int) -> Iterator[list[Row]]:
    """Work in chunks of at most ``most`` inputs, and of fewer where every worker would not have two otherwise."""
    stream = iter(work)
    while group := list(islice(stream, 2 * workers * most)):
        size = max(1, min(most, -(-len(group) // (2 * workers))))
        yield from (group[i : i + size] for i in range(0, len(group), size))


def chunk_inputs(styles: int, held: int, batch_size: int, image_size: int) -> int:
    """Inputs of a chunk: few where all styles stay loaded, else as many as pay for loading each style anew."""
    batches = 2 if styles <= held else 64
    fitting = max(1, _CHUNK_BYTES // (3 * image_size * image_size))
    return max(1, min(batches * batch_size, fitting))
