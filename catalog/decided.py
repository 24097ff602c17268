"""What a manifest has decided, held compactly in memory for a whole run: 21 bytes a row, whatever the URIs' length.

Inputs are known by two 64-bit hashes of their URI: among 10⁹ inputs the chance that two are taken for one is 10⁻²⁰.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog.manifest import Manifest, VariantKey

if TYPE_CHECKING:
    import pyarrow as pa

STATUSES = ("done", "rejected", "failed")
"""In the order of :attr:`Decided.of`'s numbers. Only what failed is ever taken up again: a row of another status is
newer than a failed one.
"""

UNDECIDED = 255

Hashes = npt.NDArray[np.uint64]
_BATCH_ROWS = 1 << 19


class Hasher:
    """Hashes of URIs, many at once."""

    def __init__(self) -> None:
        import duckdb

        self._connection = duckdb.connect()

    def __call__(self, uris: "pa.Array[Any]") -> tuple[Hashes, Hashes]:
        """Two independent 64-bit hashes of each."""
        import pyarrow as pa

        table = pa.table({"uri": uris})
        self._connection.register("uris", table)
        found = self._connection.sql("SELECT hash(uri) AS a, hash(uri, 'again') AS b FROM uris").fetchnumpy()
        return np.asarray(found["a"], np.uint64), np.asarray(found["b"], np.uint64)


class Decided:
    """Statuses of (input, variant) pairs, as the manifest stood when this was made."""

    def __init__(self, manifest: Manifest, variants: Sequence[VariantKey]) -> None:
        self._hasher = Hasher()
        self._variants = len(variants)
        parts = [self._part(table, variants) for table in _tables(manifest, variants)]
        if parts:
            first, second, variant, status = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            del parts
            order = np.argsort(first, kind="stable")
            self._first, self._second = first[order], second[order]
            self._variant, self._status = variant[order], status[order]
        else:
            self._first = self._second = np.empty(0, np.uint64)
            self._variant, self._status = np.empty(0, np.int32), np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._first)

    def of(self, uris: "pa.Array[Any]") -> tuple[npt.NDArray[np.uint8], Hashes, Hashes]:
        """For N inputs and V variants: statuses [N, V], indices of STATUSES or UNDECIDED, and the inputs' hashes."""
        first, second = self._hasher(uris)
        statuses = np.full((len(first), self._variants), UNDECIDED, np.uint8)
        if len(self):
            left, right = (np.searchsorted(self._first, first, side) for side in ("left", "right"))
            counts = right - left
            inputs = np.repeat(np.arange(len(first)), counts)
            rows = np.arange(counts.sum()) + np.repeat(left - (counts.cumsum() - counts), counts)
            same = self._second[rows] == second[inputs]
            inputs, rows = inputs[same], rows[same]
            last = np.argsort(-self._status[rows].astype(np.int8), kind="stable")  # of two rows, what is not failed
            inputs, rows = inputs[last], rows[last]
            statuses[inputs, self._variant[rows]] = self._status[rows]
        return statuses, first, second

    def _part(self, table: "pa.Table", variants: Sequence[VariantKey]) -> tuple[npt.NDArray[Any], ...]:
        """(hash, other hash, index of the variant, status) of the rows that are of our variants."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = pc.binary_join_element_wise(
            table["style_id"], table["version"].cast(pa.string()), table["params_hash"], "@"
        )
        ours = pa.array([f"{style}@{version}@{params}" for style, version, params in variants])
        place = pc.index_in(names, value_set=ours)
        table = table.append_column("variant", place).filter(pc.is_valid(place))
        status = pc.index_in(table["status"], value_set=pa.array(STATUSES)).to_numpy().astype(np.uint8)
        first, second = self._hasher(table["input_uri"].combine_chunks())
        return first, second, table["variant"].to_numpy().astype(np.int32), status


def _tables(manifest: Manifest, variants: Sequence[VariantKey]) -> "Iterable[pa.Table]":
    """The manifest's rows under the variants' parameters, many at a time."""
    import pyarrow as pa

    hashes = sorted({params_hash for _, _, params_hash in variants})
    predicate = "params_hash IN ({})".format(", ".join(f"'{params_hash}'" for params_hash in hashes))
    columns = ["input_uri", "style_id", "version", "params_hash", "status"]
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in manifest.batches(columns, predicate):
        held.append(batch.select(columns))
        count += len(batch)
        if count >= _BATCH_ROWS:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)
