"""The table of pairs, and what cannot be had from its rows: moments of features, and the few pictures that are shown.

Exactly once: the state after a commit is written to a file of its own first, and the rows of the commit name it. So
the newest state that rows name holds what those rows brought, no more and no less, whenever a run is killed; other
files are left over and are removed.
"""

import base64
import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load, save

from catalog.manifest import SCHEMA, Manifest
from cluster.storage import Storage
from jobs.evaluating.measuring import METRIC_FIELDS
from jobs.streaming.rows import Row
from osasis.metrics.frechet import Moments

TABLE, STATES = "evaluation", "state"

PAIRS_SCHEMA = pa.schema(
    [*SCHEMA, ("method", pa.string()), ("setting", pa.string()), *METRIC_FIELDS, ("state", pa.string())]
)
"""Rows of a manifest, the method and its setting, the figures, and the state that the row is part of."""

FOLDS_SMALL, FOLDS_LARGE, SMALL = 32, 10, 512
"""Groups of photographs that moments are kept for, for features of up to SMALL numbers and for larger ones."""

EXTREMES = 6
"""Best and worst pairs kept of each method and setting."""
SHOWN = 4
"""Photographs whose pictures are kept in every style, method and setting: those of the smallest hash."""
STYLES_SHOWN = 50


def folds(width: int) -> int:
    """Into how many groups photographs are dealt."""
    return FOLDS_SMALL if width <= SMALL else FOLDS_LARGE


def fold_of(input_sha256: str, count: int) -> int:
    """The group of a photograph, by its content."""
    return int(input_sha256[:8], 16) % count


@dataclass(order=True)
class Kept:
    """A pair whose picture the report may show; the smallest ``rank`` stays."""

    rank: float
    input_uri: str
    style: str
    figures: dict[str, Any] = field(compare=False)
    picture: bytes = field(compare=False)


class Shown:
    """The ``most`` pairs of the smallest rank."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.pairs: list[Kept] = []

    def offer(self, pair: Kept) -> None:
        if len(self.pairs) < self._most or pair < self.pairs[-1]:
            self.pairs = heapq.nsmallest(self._most, [*self.pairs, pair])


@dataclass
class State:
    """What all committed rows have brought. Keys begin with a ``params_hash``."""

    moments: dict[tuple[str, int], Moments] = field(default_factory=dict)
    """By group of photographs."""
    shown: dict[tuple[str, str], Shown] = field(default_factory=dict)
    """By ``best``, ``worst``, or the style whose first photographs these are."""

    def take(self, rows: Sequence[Row]) -> None:
        """Rows with ``features`` and ``picture``, of pairs that had none."""
        features: dict[tuple[str, int], list[Any]] = {}
        for row in rows:
            if row["status"] == "done":
                vector = np.asarray(row["features"], np.float64)
                fold = fold_of(row["input_sha256"], folds(len(vector)))
                features.setdefault((row["params_hash"], fold), []).append(vector)
                self._show(row)
        for key, vectors in features.items():
            new = Moments.of(np.stack(vectors))
            self.moments[key] = self.moments[key].merged(new) if key in self.moments else new

    def _show(self, row: Row) -> None:
        style = f"{row['style_id']}@{row['version']}"
        figures = {f.name: row[f.name] for f in METRIC_FIELDS}
        by_hash = int(row["input_sha256"][:12], 16)
        for kind, most, rank in (
            ("best", EXTREMES, row["artfid"]),
            ("worst", EXTREMES, -row["artfid"]),
            (style, SHOWN, by_hash),
        ):
            key = (row["params_hash"], kind)
            styles = sum(h == row["params_hash"] for h, _ in self.shown) - 2
            if key not in self.shown and kind == style and styles >= STYLES_SHOWN:
                continue
            kept = self.shown.setdefault(key, Shown(most))
            kept.offer(Kept(rank, row["input_uri"], style, figures, row["picture"]))

    def dumped(self) -> bytes:
        tensors: dict[str, Any] = {}
        for (params_hash, fold), m in self.moments.items():
            triangle = np.concatenate([m.mean, m.scatter[np.triu_indices(len(m.mean))]])
            tensors[f"{params_hash}/{fold}/{m.count}/{len(m.mean)}"] = triangle
        shown = [
            {
                "of": key,
                "pairs": [vars(pair) | {"picture": base64.b64encode(pair.picture).decode()} for pair in s.pairs],
            }
            for key, s in self.shown.items()
        ]
        return save(tensors | {"shown": np.frombuffer(json.dumps(shown).encode(), np.uint8)})

    @classmethod
    def loaded(cls, data: bytes) -> "State":
        state, tensors = cls(), load(data)
        for entry in json.loads(tensors.pop("shown").tobytes()):
            params_hash, kind = entry["of"]
            shown = state.shown[params_hash, kind] = Shown(EXTREMES if kind in ("best", "worst") else SHOWN)
            shown.pairs = [Kept(**pair | {"picture": base64.b64decode(pair["picture"])}) for pair in entry["pairs"]]
        for name, values in tensors.items():
            params_hash, fold, count, width = name.split("/")
            mean, triangle = values[: int(width)], values[int(width) :]
            scatter = np.zeros((len(mean), len(mean)))
            scatter[np.triu_indices(len(mean))] = triangle
            state.moments[params_hash, int(fold)] = Moments(int(count), mean, scatter + np.triu(scatter, 1).T)
        return state


class PairsTable(Manifest):
    """The table, which keeps its state beside it."""

    def __init__(self, output: Storage) -> None:
        super().__init__(output, TABLE, PAIRS_SCHEMA)
        self._states = output.child(STATES)
        self._state: State | None = None
        self._number = 0

    @property
    def state(self) -> State:
        """As the rows have it; read once."""
        if self._state is None:
            newest = max((name for batch in self.batches(["state"]) if (name := _last(batch))), default=None)
            self._state = State.loaded(self._states.read_bytes(newest)) if newest else State()
            self._number = int(newest.partition("-")[0]) if newest else 0
        return self._state

    def append(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        self.state.take(rows)
        name = f"{self._number + 1:010d}-{hashlib.sha256(repr(rows[0]['run_id']).encode()).hexdigest()[:8]}"
        self._states.write_bytes(name, self.state.dumped())
        try:
            super().append([row | {"state": name} for row in rows])
        except BaseException:
            self._state = None  # it holds what may not have been committed
            raise
        self._number += 1
        for other in self._states.list_files():
            if other != name:
                self._states.delete(other)

    def pairs(self, hashes: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows of these ``params_hash``."""
        quoted = ", ".join(f"'{h}'" for h in hashes)
        return self.batches(columns, f"params_hash in ({quoted})")


def _last(batch: pa.RecordBatch) -> str | None:
    return pc.max(batch["state"]).as_py() if batch.num_columns else None
