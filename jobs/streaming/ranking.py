"""What a worker of the density job does: square pixels → distance of a stochastic reconstruction.

Takes batches; gives one number a picture, which the table of densities holds. Needs the base, perceptual distance
included. A distance that is not a number is "failed".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from catalog.manifest import SCHEMA
from jobs.streaming.encoding import Batch
from jobs.streaming.rows import OUTCOME, Row, finished_schema
from jobs.streaming.variants import Variant
from jobs.streaming.worker import Failed, Task, Worker
from osasis.density import density_distance
from osasis.errors import NotFinite
from osasis.settings import DensityConfig

_DISTANCE = pa.field("distance", pa.float64())

DENSITY_SCHEMA = SCHEMA.append(_DISTANCE)
"""Rows of the table of densities: those of a manifest, and the distance."""


@dataclass(frozen=True)
class RankerTask(Task):
    """Everything a worker of the density job needs to know."""

    config: DensityConfig


class Ranker(Worker[RankerTask]):
    """Measures pictures; the noise of each is drawn by the sha256 of its file."""

    schema = finished_schema(pa.struct([*OUTCOME, _DISTANCE]))

    def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
        batch = batch.part(range(len(batch)))
        keys = [row["input_sha256"] for row in batch.rows]
        distances: list[float] = density_distance(self.base, batch.all_images, keys, self.task.config).tolist()
        unusable = Failed.by(NotFinite("the distance is not a number"))
        return [distance if distance == distance else unusable for distance in distances]

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        return {"distance": result}
