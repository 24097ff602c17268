"""The stages of a streaming job, and a run through them: what every such job does, whatever its work."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

from cluster.runtime.target import WorkersWanted
from jobs.streaming.decoding import Decode
from jobs.streaming.execution import Execution
from jobs.streaming.listing import Source
from jobs.streaming.planning import Plan, Tally, chunk_inputs, chunks
from jobs.streaming.progress import ProgressLine
from jobs.streaming.recording import Record
from jobs.streaming.worker import Task, Worker


@dataclass(frozen=True)
class Stages:
    """In the order of data: list → plan → decode → the worker's (encode → stylize → write) → record."""

    list: Source
    plan: Plan
    decode: Decode
    task: Task
    worker: type[Worker[Any]]
    record: Record


class Pool(WorkersWanted, Protocol):
    """How many inputs are taken, and by which workers: :class:`jobs.streaming.flags.StreamFlags` and its kin."""

    @property
    def limit(self) -> int | None: ...
    @property
    def batch_size(self) -> int: ...


class Executes(Protocol):
    """How :class:`jobs.streaming.execution.Execution` is made; tests have one that needs no Ray."""

    def __call__(
        self, decode: Decode, task: Task, worker: type[Worker[Any]], wanted: WorkersWanted
    ) -> AbstractContextManager[Any]: ...


def run(stages: Stages, flags: Pool, tally: Tally, execute: Executes | None = None) -> None:
    """Do what is missing, committing as it goes; ``execute`` is entered only if something is."""
    record = stages.record
    tally.now = record.counts
    work = stages.plan(islice(stages.list.items(tally.passed_over), flags.limit), tally, unique=stages.list.unique)
    first = next(work, None)
    if first is not None:
        with (
            (execute or Execution.connected)(stages.decode, stages.task, stages.worker, flags) as execution,
            ProgressLine() as line,
        ):
            styles = len({variant.style for variant in stages.plan.variants})
            held = 0 if stages.list.in_blocks or stages.task.in_shards else stages.worker.styles_held
            most = chunk_inputs(styles, held, flags.batch_size, stages.decode.size)
            try:
                for worker, outcomes in execution.run(chunks(chain([first], work), most, execution.workers)):
                    record.add(worker, outcomes)
                    line.update(record.seen, tally, len(stages.plan.variants), execution.spent, execution.ready)
            except BaseException:
                record.flush()  # whatever ends the run, what is finished stays finished
                raise
            record.finish()
            tally.flagged = record.flagged
    record.settle()
    tally.check(len(stages.plan.variants))
