"""Actor stage: square pixels → distance of a stochastic reconstruction. One row out for every row in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from catalog.manifest import SCHEMA
from jobs.streaming.worker import FINISHED, OUTCOME, Row, Task, Worker
from osasis.density import density_distance
from osasis.errors import NotFinite
from osasis.settings import DensityConfig

_DISTANCE = pa.field("distance", pa.float64())

DENSITY_SCHEMA = SCHEMA.append(_DISTANCE)
"""Rows of the table of densities: those of a manifest, and the distance."""


@dataclass(frozen=True)
class RankerTask(Task):
    """Everything an actor needs to know."""

    config: DensityConfig


class Ranker(Worker[RankerTask]):
    """Measures pictures; the noise of each is drawn by the sha256 of its file."""

    schema = FINISHED.set(
        FINISHED.get_field_index("outcomes"), pa.field("outcomes", pa.list_(pa.struct([*OUTCOME, _DISTANCE])))
    )

    def results(self, label: str, rows: Sequence[Row], chosen: list[int], shared: dict[Any, Any]) -> Sequence[Any]:
        picked = [rows[i] for i in chosen]
        keys = [row["input_sha256"] for row in picked]
        distances: list[float] = density_distance(self.base, self.images(picked), keys, self.task.config).tolist()
        return distances

    def keep(self, label: str, row: Row, result: Any) -> Row:
        if result != result:
            raise NotFinite("the distance is not a number")
        return {"distance": result}
