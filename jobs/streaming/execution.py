"""How stages run on a cluster: one Ray Data execution for a whole run, fed with chunks as they are planned.

    feed (one task) → decode (tasks) → worker (a pool of actors that live as long as the run)

Ray starts what died anew, without limit; the ledger is what bounds it. The execution is begun again, without the nodes
that are to be avoided, where a node's devices are sick; what is under way then is given out once more.
"""

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.runtime.connection import ClusterError, connect
from cluster.runtime.elastic import Elastic, NoNodeLeft
from cluster.runtime.metrics import gauge
from cluster.runtime.outlook import outlook
from cluster.runtime.resources import NODE_LABEL, Resources, nodes
from cluster.runtime.target import WorkersWanted
from cluster.runtime.waiting import asking, room_for
from jobs.streaming.decoding import Decode
from jobs.streaming.failures import RunStopped
from jobs.streaming.ledger import Coordinator, Feed, RemoteLedger
from jobs.streaming.room import Room
from jobs.streaming.rows import CHUNK, Row, one_row
from jobs.streaming.spent import Spent
from jobs.streaming.worker import Task, Worker

DECODE_CPUS = 0.25
"""Share of a CPU for a decoding task: each worker is given this beside its own, so that neither starves."""

RESULTS_AHEAD = 64
"""Batches of a worker whose outcomes may wait for the driver before it stops computing: they are a few kB each."""

PASSES_IN_VAIN = 3
"""Executions that may end in an error of Ray's with nothing finished before the run does."""

_QUEUE = 8
_LOOK_EVERY_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """Inputs that one worker takes at once."""

    number: int
    inputs: Sequence[Row]


class Execution:
    """Prepares tasks feeding a pool of workers, which follows the nodes that come and go. ``ready``: those that work.

    Args:
        resources: what a worker takes.
        workers: how many there are, at first.
        elastic: tells how many there can be later; None: as many.
    """

    def __init__(
        self,
        decode: Decode,
        task: Task,
        worker: type[Worker[Any]],
        resources: Resources,
        workers: int,
        elastic: Elastic | None = None,
    ) -> None:
        self.workers = workers
        self.ready = 0
        self._looked = -_LOOK_EVERY_S
        self._resources, self._elastic = resources, elastic
        # Beside the driver: no other node's death ends the run.
        self._here = ray.get_runtime_context().get_node_id()
        actor: Any = ray.remote(num_cpus=0)(Coordinator)
        beside = NodeAffinitySchedulingStrategy(self._here, soft=False)
        self._coordinator: Any = actor.options(scheduling_strategy=beside).remote(workers)
        ledger = RemoteLedger(self._coordinator)
        self._feed, self._decode = Feed(self._coordinator), _Decode(decode, ledger)
        self._worker, self._task = worker, (task, ledger)
        self.spent = Spent()

    @classmethod
    @contextmanager
    def connected(
        cls, decode: Decode, task: Task, worker: type[Worker[Any]], wanted: WorkersWanted
    ) -> "Iterator[Execution]":
        """Connect to Ray; as many workers as the cluster holds, once it has room for one.

        Raises:
            ClusterError: it has none.
        """
        with connect(shared=task.written) as cluster:
            whole = room_for(
                lambda there: wanted.resources(there).more(DECODE_CPUS), cluster, wanted.wait, wanted.workers.least
            )
            log.info("%s", outlook(whole, wanted.workers, nodes()))
            task = replace(task, encode=replace(task.encode, device=whole.device))
            with asking() as asked:
                elastic = Elastic(whole, wanted, asked)
                # To a Ray that this process started no node comes.
                later = None if cluster.started_here else elastic
                yield cls(decode, task, worker, whole.more(-DECODE_CPUS), elastic.now, later)

    def run(self, work: Iterable[list[Row]]) -> Iterator[tuple[str, list[Row]]]:
        """(worker, outcomes) as they come, one outcome for each missing variant of each input; ("", []) when idle.

        Raises:
            RunStopped: something is wrong that is no input's fault, or no node is left for any worker.
            RayError: the cluster fails.
        """
        planned = iter(work)
        first = list(islice(planned, self.workers))
        workers = min(self.workers, len(first))
        elastic = self._elastic if len(first) == self.workers else None  # what is left is enough for more of them
        under_way = _UnderWay()
        room = Room(workers)
        with ExitStack() as stack:
            pump = stack.enter_context(_pumping(chain(first, planned), room, under_way, self._coordinator))
            vain = 0
            while True:
                try:
                    for row in _in_thread(self._pass(max(1, elastic.now) if elastic else workers, elastic)):
                        pump.check()
                        self._follow(elastic, room)
                        outcomes = under_way.take(row) if row else []
                        self.spent.add(row and row["spent"])
                        yield (row["worker"] if row else ""), outcomes
                        if row and under_way.is_finished(row["chunk"]):
                            ray.get(self._coordinator.finished.remote(row["chunk"]))
                            room.give_back()
                            vain = 0
                    pump.check()
                    if pump.is_over and not under_way:
                        return
                    raise RuntimeError("Ray Data lost chunks")
                except (ray.exceptions.RayError, RuntimeError, RunStopped) as error:
                    pump.check()
                    vain += 1
                    self._judge(error, vain)
                ray.get(self._coordinator.rewind.remote())

    def _follow(self, elastic: Elastic | None, room: Room) -> None:
        """The pool grows by itself where there is work for more; the work, and the deaths borne, follow the nodes."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        self.ready = ray.get(self._coordinator.ready.remote())
        gauge("osasis_workers", self.ready)  # again and again: Ray forgets it in a minute
        try:
            if elastic and elastic.look():
                room.resize(elastic.now)
                ray.get(self._coordinator.resize.remote(elastic.now))
        except NoNodeLeft as error:
            raise RunStopped(str(error)) from None

    def _judge(self, error: Exception, vain: int) -> None:
        """Whether to go on after an execution that ended in an error."""
        match ray.get(self._coordinator.verdict.remote()):
            case ("stop", why):
                raise RunStopped(why) from None
            case ("avoid", why):
                log.warning("a node gets no more work: %s", why)
            case _ if isinstance(error, RunStopped) or vain >= PASSES_IN_VAIN:
                raise error
            case _:
                log.warning("starting again: %s", str(error).strip().splitlines()[-1])

    def _pass(self, workers: int, elastic: Elastic | None) -> Callable[[], Iterator[Row]]:
        """One execution, begun with so many workers; its rows of FINISHED."""
        avoided = sorted(ray.get(self._coordinator.avoided.remote()))
        healthy = {NODE_LABEL: f"!in({','.join(avoided)})"} if avoided else None
        if healthy and not _others(avoided):
            raise ClusterError("the devices of every node fail: see the warnings above")
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_max_block_size = (
            1  # a block is a row: a chunk, or the outcomes of a batch, as soon as it is there
        )
        context._max_num_blocks_in_streaming_gen_buffer = RESULTS_AHEAD  # 2 by default; has no public name
        with DataContext.current(context):
            dataset = (
                ray.data.from_arrow(pa.table({"begin": [0]}))
                .map_batches(
                    self._feed,
                    batch_size=None,
                    batch_format="pyarrow",
                    num_cpus=0,
                    label_selector={NODE_LABEL: self._here},
                )
                .map_batches(self._decode, batch_size=1, batch_format="pyarrow", num_cpus=DECODE_CPUS)
                .map_batches(
                    self._worker,
                    fn_constructor_args=self._task,
                    batch_size=1,
                    batch_format="pyarrow",
                    compute=ActorPoolStrategy(
                        min_size=workers,
                        max_size=max(elastic.most or sys.maxsize, workers) if elastic else workers,
                        initial_size=workers,
                        max_tasks_in_flight_per_actor=2,
                    ),
                    num_cpus=self._resources.cpus,
                    num_gpus=self._resources.gpus or None,
                    label_selector=healthy,
                )
            )
        return lambda: _rows(dataset)


def _rows(dataset: Dataset) -> Iterator[Row]:
    tables: Iterable[pa.Table] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in tables:
        yield from table.to_pylist()


def _others(avoided: Sequence[str]) -> bool:
    return any(node["Alive"] and node["NodeID"] not in avoided for node in ray.nodes())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Decode:
    """The stage as Ray Data calls it."""

    decode: Decode
    ledger: RemoteLedger

    def __call__(self, chunk: pa.Table) -> pa.Table:
        with _told(self.ledger):
            return self.decode(chunk, self.ledger)


@contextmanager
def _told(ledger: RemoteLedger) -> Iterator[None]:
    """Tells the coordinator why a run ends: Ray hands errors on as text, if at all."""
    try:
        yield
    except RunStopped as stopped:
        ray.get(ledger.coordinator.stop.remote(str(stopped)))
        raise


class _UnderWay:
    """Chunks given out, and the (input, variant) pairs of each that have no outcome yet."""

    def __init__(self) -> None:
        self._open: dict[int, set[tuple[str, str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, chunk: Chunk) -> None:
        self._open[chunk.number] = {(row["input_uri"], label) for row in chunk.inputs for label in row["missing"]}

    def take(self, row: Row) -> list[Row]:
        """The outcomes of a FINISHED row that are new; what was computed twice has them twice."""
        pairs = self._open.get(row["chunk"], set())
        new = [o for o in row["outcomes"] if (o["input_uri"], o["variant"]) in pairs]
        pairs.difference_update((o["input_uri"], o["variant"]) for o in new)
        return new

    def is_finished(self, number: int) -> bool:
        """Whether the chunk has all its outcomes, which is said once."""
        if self._open.get(number) != set():
            return False
        del self._open[number]
        return True


class _Pump(threading.Thread):
    """Plans chunks and hands them to the coordinator, as long as there is room."""

    def __init__(self, work: Iterable[list[Row]], room: Room, under_way: _UnderWay, coordinator: Any) -> None:
        super().__init__(name="plan", daemon=True)
        self._work, self._room, self._under_way, self._coordinator = work, room, under_way, coordinator
        self._error: BaseException | None = None
        self.stopped = threading.Event()
        self.is_over = False

    def run(self) -> None:
        try:
            for number, inputs in enumerate(self._work):
                while not self._room.take(timeout=0.5):
                    if self.stopped.is_set():
                        return
                if self.stopped.is_set():
                    return
                self._under_way.add(Chunk(number, inputs))
                table = one_row({"chunk": number, "inputs": inputs}, CHUNK)
                ray.get(self._coordinator.put.remote(number, table))
        except BaseException as error:
            self._error = error
        finally:
            self.is_over = True
            if not self.stopped.is_set():
                ray.get(self._coordinator.close.remote())

    def check(self) -> None:
        """Raise what planning raised."""
        if self._error is not None:
            raise self._error


@contextmanager
def _pumping(work: Iterable[list[Row]], room: Room, under_way: _UnderWay, coordinator: Any) -> Iterator[_Pump]:
    pump = _Pump(work, room, under_way, coordinator)
    pump.start()
    try:
        yield pump
    finally:
        pump.stopped.set()
        pump.join(timeout=5)


def _in_thread(rows: Callable[[], Iterator[Row]]) -> Iterator[Row | None]:
    """``rows`` run in a thread, so that the caller has its turn, and signals are handled, while nothing comes: None."""
    ready: queue.Queue[tuple[Row | None, BaseException | None]] = queue.Queue(_QUEUE)
    stop = threading.Event()

    def offer(row: Row | None, error: BaseException | None = None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                return ready.put((row, error), timeout=1)

    def pump() -> None:
        try:
            for row in rows():
                offer(row)
                if stop.is_set():
                    return
            offer(None)
        except BaseException as error:
            offer(None, error)

    threading.Thread(target=pump, name="results", daemon=True).start()
    try:
        while True:
            try:
                row, error = ready.get(timeout=1)
            except queue.Empty:
                yield None
                continue
            if error is not None:
                raise error
            if row is None:
                return
            yield row
    finally:
        stop.set()
