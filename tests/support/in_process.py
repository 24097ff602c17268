"""Streaming jobs without a cluster: the same stages, chunk by chunk in this process."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray

from cluster.runtime.target import WorkersWanted
from jobs.streaming.decoding import Decode
from jobs.streaming.execution import Execution
from jobs.streaming.ledger import LocalLedger
from jobs.streaming.rows import CHUNK, Row, one_row
from jobs.streaming.spent import Spent
from jobs.streaming.worker import Task, Worker


@dataclass(frozen=True)
class InProcess:
    """In the place of :class:`jobs.streaming.execution.Execution`; stages are pickled as on their way to a node."""

    decode: Decode
    task: Task
    worker: type[Worker[Any]]
    workers: int = 1
    ready: int = 1
    spent: Spent = field(default_factory=Spent)

    @classmethod
    @contextmanager
    def connected(
        cls, decode: Decode, task: Task, worker: type[Worker[Any]], wanted: WorkersWanted
    ) -> Iterator["InProcess"]:
        yield cls(*ray.cloudpickle.loads(ray.cloudpickle.dumps((decode, task, worker))))

    def run(self, work: Iterable[list[Row]]) -> Iterator[tuple[str, list[Row]]]:
        ledger = LocalLedger()
        worker = self.worker(self.task, ledger)
        for number, inputs in enumerate(work):
            chunk = one_row({"chunk": number, "inputs": inputs}, CHUNK)
            for table in worker(self.decode(chunk, ledger)):
                (row,) = table.to_pylist()
                self.spent.add(row["spent"])
                yield row["worker"], row["outcomes"]


def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streaming jobs do their work in this process."""
    monkeypatch.setattr(Execution, "connected", InProcess.connected)
