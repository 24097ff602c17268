"""Stage "plan": all inputs, less what the manifest has decided, cut into chunks.

Takes inputs as they are listed; gives WORK rows with the labels of the variants that each lacks. Needs the manifest,
which is read once a run. Counts what was decided before.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.decided import STATUSES, UNDECIDED, Decided
from catalog.hashed import Hashes, HashTable
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
        seen = _Seen()
        stream = iter(items)
        while group := list(islice(stream, _GROUP)):
            statuses, first, second = decided.of(pa.array([item.uri for item in group]))
            tally.inputs += len(group)
            if not unique:
                new = seen.first_time(first, second)
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


class _Seen:
    """Inputs met so far, by their hashes: 17 bytes each."""

    def __init__(self) -> None:
        self._table = HashTable(1)

    def first_time(self, first: Hashes, second: Hashes) -> list[int]:
        """Places of the inputs that were not met before; they are remembered."""
        new = np.flatnonzero(self._table.find(first, second)[:, 0] == 0)
        _, places = np.unique(np.stack([first[new], second[new]]), axis=1, return_index=True)
        new = new[np.sort(places)]
        self._table.add(first[new], second[new], np.zeros(len(new), np.intp), 1)
        return new.tolist()


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
