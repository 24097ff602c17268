"""The Ray Data pipeline of one group of inputs, and what becomes of inputs that kill their worker.

A first pass streams blocks of several inputs. A block whose process dies twice is lost and the rest goes on; lost
inputs then run alone, and one that kills its process again gets a "failed" row. So nothing retries for ever, and an
innocent neighbour of a deadly input is still done.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from jobs.streaming.prepare import WORK, Prepare
from jobs.streaming.worker import Row, Task, Worker

PREPARE_CPUS = 0.25
"""Share of a CPU for a reading and decoding task: each worker is given this beside its own, so that neither starves."""

LOST_BLOCKS = 8
"""Blocks that may be lost in one group before the job gives up: beyond, it is not the inputs that are at fault."""

_QUEUE_BLOCKS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Actors to run on, each with this much of the cluster."""

    workers: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Pipeline:
    """Prepare tasks feeding a pool of workers."""

    prepare: Prepare
    task: Task
    pool: Pool
    worker: type[Worker[Any]]

    def run(self, work: Sequence[Row]) -> Iterator[list[Row]]:
        """Rows of FINISHED in groups as they come, exactly one for each row of WORK; [] when idle for a second.

        Raises:
            RayError: workers die or cannot start whatever the input.
        """
        pending = {row["input_uri"]: row for row in work}
        for isolated in (False, True):
            if not pending:
                return
            if isolated:
                log.warning("%d inputs were lost with their worker: running each alone", len(pending))
            for rows in _in_thread(self._pass(list(pending.values()), isolated)):
                for row in rows:
                    del pending[row["input_uri"]]
                yield rows
        if pending:
            yield [_worker_died(row) for row in pending.values()]

    def _pass(self, work: Sequence[Row], isolated: bool) -> Callable[[], Iterator[list[Row]]]:
        """One execution; blocks are lost, not raised."""
        rows_per_block = 1 if isolated else self._rows_per_block(len(work))
        table = pa.Table.from_pylist(list(work), schema=WORK)
        blocks = [table.slice(i, rows_per_block).combine_chunks() for i in range(0, len(work), rows_per_block)]
        context = DataContext.get_current().copy()
        context.max_errored_blocks = -1 if isolated else LOST_BLOCKS
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # One death is forgiven in company, none alone. Actors may restart as often as all blocks together can kill
        # them; one that dies while loading uses that up and ends the job.
        retries = 0 if isolated else 1
        restarts = (len(blocks) if isolated else 2 * LOST_BLOCKS) + 8
        with DataContext.current(context):
            dataset = ray.data.from_arrow(blocks).map_batches(
                self.prepare,
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=PREPARE_CPUS,
                max_retries=retries,
            )
            dataset = dataset.map_batches(
                self.worker,
                fn_constructor_args=(self.task,),
                batch_size=rows_per_block,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(
                    size=min(self.pool.workers, len(blocks)),
                    max_tasks_in_flight_per_actor=1 if isolated else 2,
                ),
                num_cpus=self.pool.cpus,
                num_gpus=self.pool.gpus or None,
                max_restarts=restarts,
                max_task_retries=retries,
            )

        def batches() -> Iterator[list[Row]]:
            tables: Iterable[pa.Table] = dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            )
            for table in tables:
                yield table.to_pylist()

        return batches

    def _rows_per_block(self, inputs: int) -> int:
        """Whole batches, but no fewer blocks than keep every worker busy."""
        share = -(-inputs // (2 * self.pool.workers))
        return max(1, min(2 * self.task.batch_size, share))


def _in_thread(batches: Callable[[], Iterator[list[Row]]]) -> Iterator[list[Row]]:
    """``batches`` run in a thread, so that the caller has its turn, and signals are handled, while nothing comes."""
    ready: queue.Queue[list[Row] | BaseException | None] = queue.Queue(_QUEUE_BLOCKS)
    stop = threading.Event()

    def offer(got: list[Row] | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                return ready.put(got, timeout=1)

    def pump() -> None:
        try:
            for rows in batches():
                offer(rows)
                if stop.is_set():
                    return
            offer(None)
        except BaseException as error:
            offer(error)

    threading.Thread(target=pump, name="stylize-results", daemon=True).start()
    try:
        while True:
            try:
                got = ready.get(timeout=1)
            except queue.Empty:
                got = []
            if got is None:
                return
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        stop.set()


def _worker_died(row: Row) -> Row:
    outcome = {
        "status": "failed",
        "error_type": "worker-died",
        "error": "the process working on this input alone died (out of memory, or a crash in a native library)",
        "seconds": 0.0,
    }
    known = {name: row[name] for name in ("input_uri", "key")}
    return known | {"outcomes": [outcome | {"style": label} for label in row["missing"]]}
