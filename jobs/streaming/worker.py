"""The process that computes: holds a base, takes DECODED chunks, gives FINISHED rows as batches are durable.

It works style by style over a chunk, so that each style is loaded once a chunk, and writes what is ready in threads
while it computes on. What an error leads to is decided by :mod:`jobs.streaming.failures`.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Generic, NoReturn, TypeVar, cast

import pyarrow as pa
import torch

from cluster.runtime.metrics import Stage, spent, timed
from cluster.storage import Storage
from jobs.streaming.decoding import WORKER_DIED
from jobs.streaming.encoding import Batch, Encode
from jobs.streaming.failures import Action, Fault, RunStopped, action, fault_of, together
from jobs.streaming.ledger import Ledger
from jobs.streaming.packing import Bundle
from jobs.streaming.rows import Row, finished_schema, one_row
from jobs.streaming.spent import Clock
from jobs.streaming.variants import Variant

WRITERS = 8
"""Threads that write results: PNG, checksum and upload."""

BATCHES_WRITING = 4
"""Batches that may wait for their writers while the next are computed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What every worker needs to know."""

    encode: Encode
    variants: tuple[Variant, ...]

    @property
    def written(self) -> tuple[Storage, ...]:
        """Storage that workers write to, which every node must see."""
        return ()

    @property
    def in_shards(self) -> bool:
        """Whether what comes of a chunk is stored together, so that large chunks are better."""
        return False


@dataclass(frozen=True)
class Failed:
    """In the place of a result."""

    error_type: str
    error: str

    @classmethod
    def by(cls, error: BaseException) -> "Failed":
        return cls(type(error).__name__, str(error))


@dataclass
class _Writing:
    """A batch of one variant whose results are being stored."""

    rows: Sequence[Row]
    variant: Variant
    results: list[Failed | Future[Row]]
    seconds: float


T = TypeVar("T", bound=Task)


class Worker(Generic[T]):
    """A kind of work says what comes of pictures (:meth:`results`) and what is kept of it (:meth:`keep`)."""

    schema = finished_schema()
    """Of the rows given out."""

    styles_held = 1 << 30
    """How many styles stay loaded; for more, each is loaded once a chunk."""

    def __init__(self, task: T, ledger: Ledger) -> None:
        self.task, self.ledger = task, ledger
        ledger.begin_loading()
        self.base = task.encode.open()
        self.variants = {variant.label: variant for variant in task.variants}
        self.most = task.encode.batch_size  # pictures computed at once; fewer after memory has run out
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        self._name = f"{os.uname().nodename}/{os.getpid()}"
        ledger.end_loading()
        self.clock = Clock()

    def __call__(self, decoded: pa.Table) -> Iterator[pa.Table]:
        """DECODED → :attr:`schema`. The same rows in the same groups, however often it is done."""
        self.clock.lap("pictures")
        (chunk,) = decoded.to_pylist()
        unit = f"work/{chunk['chunk']}"
        try:
            for outcomes in self._chunk(unit, chunk["inputs"], alone=not together(self.ledger.begin(unit))):
                row = {"chunk": chunk["chunk"], "worker": self._name, "outcomes": outcomes, "spent": self._spent()}
                yield one_row(row, self.schema)
                self.clock.lap("driver")
        except RunStopped as stopped:
            self.ledger.stop(str(stopped))
            raise
        self.ledger.end(unit)

    def _spent(self) -> dict[str, float]:
        """Seconds by kind since the last results, which are counted in the metrics as well."""
        taken = self.clock.take()
        for kind, seconds in taken.items():
            spent(cast(Stage, kind), seconds, self.base.device.type)
        return taken

    def prepare(self, variant: Variant, following: Variant | None) -> None:
        """Get ready for a variant, and perhaps for the one after it."""

    def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
        """One result for each picture of the batch, in the variant; :class:`Failed` where it is none."""
        raise NotImplementedError

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        """What an outcome says of a result, once that is durable. Runs in a thread."""
        raise NotImplementedError

    def _timed_keep(self, variant: Variant, row: Row, result: Any) -> Row:
        with timed("write"):
            return self.keep(variant, row, result)

    def bundle(self) -> Bundle:
        """What gathers the outcomes of a chunk before they are told."""
        return Bundle(None)

    def end_process(self) -> NoReturn:
        """Leave, to be started anew."""
        os._exit(1)

    def _chunk(self, unit: str, rows: Sequence[Row], *, alone: bool) -> Iterator[list[Row]]:
        """Outcomes, batch by batch."""
        yield [_outcome(row, label, row) for row in rows if row["status"] is not None for label in row["missing"]]
        batches = self.task.encode.batches([row for row in rows if row["status"] is None], self.base, self._kinds())
        dead = self._deadly(unit, batches) if alone else set()
        wanted = [v for v in self.task.variants if any(v.label in row["missing"] for b in batches for row in b.rows)]
        writing: deque[_Writing] = deque()
        bundle = self.bundle()
        for variant, following in zip_longest(wanted, wanted[1:]):
            self._guarded(unit, variant, following)
            self.clock.lap("styles")
            for batch in batches:
                if any(variant.label in row["missing"] for row in batch.rows):
                    writing.append(self._batch(unit, variant, batch, dead))
                    self.clock.lap("computing")
                if len(writing) > BATCHES_WRITING:
                    yield from bundle.add(writing[0].variant.label, self._written(writing.popleft()))
        while writing:
            yield from bundle.add(writing[0].variant.label, self._written(writing.popleft()))
        yield from bundle.rest()

    def _kinds(self) -> int:
        """Kinds of codes that a picture may have."""
        return 1 + len({variant.text for variant in self.task.variants if variant.text is not None})

    def _deadly(self, unit: str, batches: Sequence[Batch]) -> set[str]:
        """URIs of the inputs that kill the process; each that is left is tried once, alone, to find out."""
        dead = set()
        for i, row in enumerate(row for batch in batches for row in batch.rows):
            if self.ledger.begin(f"{unit}/{i}"):  # not ended: it stays guilty, should another kill the process
                dead.add(row["input_uri"])
                continue
            (batch,) = self.task.encode.batches([row], self.base, 1)
            for variant in self.task.variants:
                if variant.label in row["missing"]:
                    self._guarded(unit, variant, None)
                    self._written(self._batch(unit, variant, batch, set()))
            self.ledger.end(f"{unit}/{i}")
        return dead

    def _guarded(self, unit: str, variant: Variant, following: Variant | None) -> None:
        """:meth:`prepare`, whose errors are no picture's fault."""
        try:
            return self.prepare(variant, following)
        except Exception as error:
            fault, said = fault_of(error), Failed.by(error)
        if fault in (Fault.MEMORY, Fault.DEVICE):
            self._leave(unit, said)
        raise RunStopped(f"{variant.label} cannot be loaded: {said.error_type}: {said.error}")

    def _batch(self, unit: str, variant: Variant, batch: Batch, dead: set[str]) -> _Writing:
        """Compute those that lack the variant, and start to write them."""
        start = time.monotonic()
        chosen = [i for i, row in enumerate(batch.rows) if variant.label in row["missing"]]
        living = [i for i in chosen if batch.rows[i]["input_uri"] not in dead]
        company = batch.part if dead else batch.choose
        computed = self._computed(unit, variant, company(living)) if living else []
        found = dict(zip(living, computed, strict=True))
        died = Failed(WORKER_DIED["error_type"], WORKER_DIED["error"])
        results: list[Failed | Future[Row]] = []
        for i in chosen:
            result = found.get(i, died)
            if not isinstance(result, Failed):
                result = self._writers.submit(self._timed_keep, variant, batch.rows[i], result)
            results.append(result)
        seconds = (time.monotonic() - start) / len(chosen)
        return _Writing([batch.rows[i] for i in chosen], variant, results, seconds)

    def _computed(self, unit: str, variant: Variant, batch: Batch) -> list[Any]:
        """A result or :class:`Failed` for each picture."""
        if len(batch) > self.most:
            return self._split(unit, variant, batch)
        try:
            with torch.inference_mode():
                return list(self.results(variant, batch))
        except Exception as error:
            fault, said = fault_of(error), Failed.by(error)
        # Outside of the handler, so that the traceback with all the tensors of its frames is gone.
        match action(fault, len(batch)):
            case Action.FAIL:
                return [said]
            case Action.SHRINK:
                self.most = max(1, len(batch) // 2)
                log.warning("memory ran out: %d pictures at once from now on", self.most)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                return self._split(unit, variant, batch)
            case Action.SPLIT:
                return self._split(unit, variant, batch)
            case Action.LEAVE:
                self._leave(unit, said)
            case Action.STOP:
                raise RunStopped(f"{said.error_type}: {said.error}")

    def _split(self, unit: str, variant: Variant, batch: Batch) -> list[Any]:
        half = len(batch) // 2
        halves = range(half), range(half, len(batch))
        return [result for part in halves for result in self._computed(unit, variant, batch.part(part))]

    def _leave(self, unit: str, said: Failed) -> NoReturn:
        why = f"{self._name} gave up its device: {said.error_type}: {said.error}"
        log.warning(why)
        self.ledger.leave(unit, why)
        self.end_process()

    def _written(self, writing: _Writing) -> list[Row]:
        """Outcomes of a batch, once its writers are through."""
        outcomes = []
        for row, result in zip(writing.rows, writing.results, strict=True):
            said: Failed | Row = result if isinstance(result, Failed) else self._stored(result)
            verdict: Row
            if isinstance(said, Failed):
                verdict = {"status": "failed", "error_type": said.error_type, "error": said.error, "seconds": 0.0}
            else:
                verdict = {"status": "done", "error_type": None, "error": None, "seconds": writing.seconds} | said
            outcomes.append(_outcome(row, writing.variant.label, verdict))
        self.clock.lap("storage")
        return outcomes

    def _stored(self, storing: Future[Row]) -> Failed | Row:
        try:
            return storing.result()
        except Exception as error:
            if fault_of(error) == Fault.STORAGE:
                raise RunStopped(f"a result cannot be stored: {error}") from None
            return Failed.by(error)


def _outcome(row: Row, label: str, verdict: Row) -> Row:
    return row | {"seconds": 0.0} | verdict | {"variant": label}
