"""Streaming jobs without a cluster: the same plan, stages and recorder, block by block in this process."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import ray

from jobs.streaming.prepare import WORK, Prepare
from jobs.streaming.worker import Task, Worker


@dataclass(frozen=True)
class InProcessPipeline:
    """In the place of :class:`jobs.streaming.pipeline.Pipeline`; stages are pickled as on their way to a node."""

    prepare: Prepare
    task: Task
    pool: None
    worker: type[Worker[Any]]

    def run(self, work: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        prepare, task, worker = ray.cloudpickle.loads(ray.cloudpickle.dumps((self.prepare, self.task, self.worker)))
        actor = worker(task)
        for start in range(0, len(work), 2 * task.batch_size):
            block = pa.Table.from_pylist(list(work[start : start + 2 * task.batch_size]), schema=WORK)
            yield actor(prepare(block)).to_pylist()


def without_cluster(job: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``job`` (a module that has ``connect``, ``pool`` and ``Pipeline``) do its work in this process."""
    monkeypatch.setattr(job, "connect", nullcontext)
    monkeypatch.setattr(job, "pool", lambda flags: None)
    monkeypatch.setattr(job, "Pipeline", InProcessPipeline)
