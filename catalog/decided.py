"""What a manifest has decided, held compactly in memory for a whole run: 16 bytes an input and 2 bits a variant.

Inputs are known by 128-bit hashes of their URI: among 10⁹ inputs the chance that two are taken for one is 10⁻²⁰.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog.hashed import Hashes, HashTable
from catalog.manifest import Manifest, VariantKey

if TYPE_CHECKING:
    import pyarrow as pa

STATUSES = ("done", "rejected", "failed")
"""In the order of :attr:`Decided.of`'s numbers. Only what failed is ever taken up again: a row of another status is
newer than a failed one, and so holds.
"""

UNDECIDED = 255

_VALUES = len(STATUSES)
"""In the table "done" is 3, "rejected" 2, "failed" 1 and what is undecided 0: the larger holds."""

_NUMBERS = np.array([UNDECIDED, *reversed(range(_VALUES))], np.uint8)


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
        self._table = HashTable(len(variants))
        hashes = sorted({params_hash for _, _, params_hash in variants})
        predicate = "params_hash IN ({})".format(", ".join(f"'{params_hash}'" for params_hash in hashes))
        for table in manifest.tables(["input_uri", "style_id", "version", "params_hash", "status"], predicate):
            self._add(table, variants)
        self._table.join()

    def __len__(self) -> int:
        """Inputs of which something is decided."""
        return len(self._table)

    def of(self, uris: "pa.Array[Any]") -> tuple[npt.NDArray[np.uint8], Hashes, Hashes]:
        """For N inputs and V variants: statuses [N, V], indices of STATUSES or UNDECIDED, and the inputs' hashes."""
        first, second = self._hasher(uris)
        return _NUMBERS[self._table.find(first, second)], first, second

    def _add(self, table: "pa.Table", variants: Sequence[VariantKey]) -> None:
        """Take in the rows that are of our variants."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = pc.binary_join_element_wise(
            table["style_id"], table["version"].cast(pa.string()), table["params_hash"], "@"
        )
        ours = pa.array([f"{style}@{version}@{params}" for style, version, params in variants])
        place = pc.index_in(names, value_set=ours)
        if place.null_count:
            table = table.filter(pc.is_valid(place))
            place = place.drop_null()
        status = pc.index_in(table["status"], value_set=pa.array(STATUSES)).to_numpy()
        self._table.add(*self._hasher(table["input_uri"]), place.to_numpy(), _VALUES - status)
