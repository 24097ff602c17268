"""What an actor of a pool does with prepared rows, whatever its work: batches, and failures that stay where they arose.

One row out for every row in.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from jobs.shared.bases import open_base
from jobs.streaming.variants import Variant
from osasis.image import pixels_to_tensor
from osasis.precision import Precision

Row = dict[str, Any]

OUTCOME = pa.struct(
    [
        ("style", pa.string()),
        ("status", pa.string()),
        ("output_uri", pa.string()),
        ("output_sha256", pa.string()),
        ("error_type", pa.string()),
        ("error", pa.string()),
        ("seconds", pa.float64()),
    ]
)

FINISHED = pa.schema(
    [
        ("input_uri", pa.string()),
        ("key", pa.string()),
        ("input_sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("transform", pa.string()),
        ("outcomes", pa.list_(OUTCOME)),
    ]
)
"""One row an input; ``outcomes`` has one entry for each variant that was missing."""


@dataclass(frozen=True)
class Task:
    """What every actor needs to know."""

    base_location: str
    variants: tuple[Variant, ...]
    cache_dir: Path
    batch_size: int
    threads: int
    device: str

    @property
    def precision(self) -> Precision:
        """In which the base computes."""
        return "float32"


T = TypeVar("T", bound=Task)


class Worker(Generic[T]):
    """Holds a base. A kind of work says what comes of rows (:meth:`results`) and what is kept of it (:meth:`keep`)."""

    schema = FINISHED
    """Of the rows given out."""

    def __init__(self, task: T) -> None:
        torch.set_num_threads(task.threads)
        self.task = task
        self.base = open_base(task.base_location, task.device, task.cache_dir, task.precision)
        self.variants = {variant.label: variant for variant in task.variants}

    def __call__(self, prepared: pa.Table) -> pa.Table:
        """PREPARED → :attr:`schema`."""
        rows = prepared.to_pylist()
        for row in rows:
            row["outcomes"] = []
            if row["status"] is not None:
                _fail(row, row["missing"], row["status"], row["error_type"], row["error"])
        ready = [row for row in rows if row["status"] is None]
        for start in range(0, len(ready), self.task.batch_size):
            self._batch(ready[start : start + self.task.batch_size])
        known = [{name: row[name] for name in self.schema.names} for row in rows]
        return pa.Table.from_pylist(known, schema=self.schema)

    def results(self, label: str, rows: Sequence[Row], chosen: list[int], shared: dict[Any, Any]) -> Sequence[Any]:
        """One result for each of the chosen rows, in the named variant; ``shared`` is kept for the batch's others."""
        raise NotImplementedError

    def keep(self, label: str, row: Row, result: Any) -> Row:
        """What an outcome says of a result, once that is durable."""
        raise NotImplementedError

    def images(self, rows: Sequence[Row]) -> Tensor:
        """[B, 3, S, S] in [-1, 1] on the base's device."""
        size = self.base.image_size
        pixels = np.stack([np.frombuffer(row["pixels"], np.uint8).reshape(size, size, 3) for row in rows])
        return pixels_to_tensor(pixels).to(self.base.device)

    def _batch(self, rows: Sequence[Row]) -> None:
        shared: dict[Any, Any] = {}
        for label in self.variants:
            chosen = [i for i, row in enumerate(rows) if label in row["missing"]]
            if chosen:
                self._attempt(label, rows, chosen, shared)

    def _attempt(self, label: str, rows: Sequence[Row], chosen: list[int], shared: dict[Any, Any]) -> None:
        """One variant of a batch; where that fails, by a picture of it or for want of memory, picture by picture."""
        start = time.monotonic()
        try:
            with torch.inference_mode():
                results = self.results(label, rows, chosen, shared)
        except Exception as error:
            if len(rows) == 1:
                _fail(rows[0], [label], "failed", type(error).__name__, str(error))
                return
            for i in chosen:
                self._attempt(label, [rows[i]], [0], {})
            return
        seconds = (time.monotonic() - start) / len(chosen)
        for i, result in zip(chosen, results, strict=True):
            try:
                kept = self.keep(label, rows[i], result)
            except Exception as error:
                _fail(rows[i], [label], "failed", type(error).__name__, str(error))
            else:
                rows[i]["outcomes"].append({"style": label, "status": "done", "seconds": seconds} | kept)


def _fail(row: Row, labels: Sequence[str], status: str, error_type: str, error: str) -> None:
    for label in labels:
        row["outcomes"].append(
            {"style": label, "status": status, "error_type": error_type, "error": error, "seconds": 0.0}
        )
