"""What a failure leads to: the policy of streaming jobs, apart from its execution. No I/O, no Ray, no threads.

| what happens | what follows |
|---|---|
| an input cannot be read, or is no usable picture | its row says "failed" or "rejected" |
| a computation fails in company | halves are tried, down to the guilty picture, whose row says "failed" |
| memory runs out | halves are tried, and the worker keeps to the smaller batch |
| memory runs out for one picture, or a device fails | the worker leaves; its chunk is tried again elsewhere |
| workers of a node have left :data:`LEAVES` times in a row | the node gets no more work in this run |
| a worker dies | its chunk is tried once more, then input by input; one that kills alone has a "failed" row |
| a node is lost | its chunks are tried again; nobody is blamed |
| workers die whatever they work on, or while they load | the run stops |
| storage serves nobody while an input is read | the run stops; what is not recorded stays undecided |
| a style cannot be loaded, or a result not be stored | the run stops; what is not recorded stays undecided |
| :data:`FAILURES` inputs of a worker fail in a row | the run stops; those are not recorded |
"""

from collections import Counter
from collections.abc import Collection, Sequence
from enum import Enum, auto

from cluster.storage import StorageError
from jobs.streaming.rows import Row

DEATHS_IN_COMPANY = 2
"""Deaths over a chunk after which its inputs are tried one by one."""

DEATHS_LOADING = 3
"""Deaths of one worker while it loads after which the run stops."""

DEATHS = 16
"""Deaths with nothing finished in between after which the run stops; for each worker two more."""

LEAVES = 3
"""Departures of a node's workers, with nothing finished in between, after which it is avoided."""

FAILURES = 20
"""Failed inputs of one worker, with none done in between, after which it is not the inputs that are at fault."""

_ABSENT = ("NotFound", "FileNotFoundError")
"""How the reason of an "unreadable" input begins that simply is not there: as many of those as there may be."""


class RunStopped(Exception):
    """The run ends without a verdict on what was under way; the message is for people."""


class NodeAvoided(Exception):
    """The run goes on without a node."""


class Fault(Enum):
    """Whose fault an error is."""

    INPUT = auto()
    MEMORY = auto()
    DEVICE = auto()
    STORAGE = auto()


class Action(Enum):
    """What a worker does about an error."""

    FAIL = auto()
    SPLIT = auto()
    SHRINK = auto()
    LEAVE = auto()
    STOP = auto()


def fault_of(error: BaseException) -> Fault:
    """Whose fault ``error`` is; an error of unknown kind is the input's."""
    import torch  # the processes that only keep account do without

    text = str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text:
        return Fault.MEMORY
    if isinstance(error, StorageError):
        return Fault.STORAGE
    sick = ("CUDA error", "CUDA driver", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS", "NVML", "HIP error")
    if isinstance(error, torch.AcceleratorError) or any(sign in text for sign in sick):
        return Fault.DEVICE
    return Fault.INPUT


def action(fault: Fault, pictures: int) -> Action:
    """What to do where a computation of so many pictures failed."""
    match fault:
        case Fault.INPUT:
            return Action.SPLIT if pictures > 1 else Action.FAIL
        case Fault.MEMORY:
            return Action.SHRINK if pictures > 1 else Action.LEAVE
        case Fault.DEVICE:
            return Action.LEAVE
        case Fault.STORAGE:
            return Action.STOP


class Attempts:
    """What was begun and not ended: how deaths are noticed, and traced to what they are due to."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._begun: dict[str, list[str]] = {}
        self._deaths = 0
        self._left: Counter[str] = Counter()
        self._ready: dict[str, str] = {}
        self.avoided: set[str] = set()

    def begin(self, unit: str, node: str, alive: Collection[str]) -> int:
        """How often work on ``unit`` has ended in death before; deaths with their node do not count.

        Raises:
            RunStopped: too many deaths with nothing finished in between.
        """
        earlier = self._begun.setdefault(unit, [])
        killed = sum(there in alive for there in earlier)
        if earlier and earlier[-1] in alive and not _is_input(unit):
            self._deaths += 1
        if self._deaths > DEATHS + 2 * self.workers:
            raise RunStopped(f"{self._deaths} worker processes died with nothing finished in between: see Ray's logs")
        earlier.append(node)
        return killed

    def begin_loading(self, worker: str, node: str, alive: Collection[str]) -> None:
        """Raises RunStopped where a worker dies again and again while it loads."""
        self._ready.pop(worker, None)
        if self.begin(f"load/{worker}", node, alive) >= DEATHS_LOADING:
            raise RunStopped("a worker's process died again and again while it loaded base or styles: see Ray's logs")

    def end_loading(self, worker: str, node: str) -> None:
        """A worker has loaded its base."""
        self.end(f"load/{worker}")
        self._ready[worker] = node

    def ready(self, alive: Collection[str]) -> int:
        """Workers that have loaded, on nodes that are alive; one that died counts until it begins anew."""
        return sum(node in alive for node in self._ready.values())

    def none_ready(self) -> None:
        """All workers have been let go."""
        self._ready.clear()

    def end(self, unit: str) -> None:
        """Work on ``unit`` came to its end."""
        if unit.startswith("work/"):  # to load and to decode shows nothing of a device's health
            for node in self._begun.get(unit, []):
                self._left.pop(node, None)
        self._forget(unit)
        if not unit.startswith("load/"):
            self._deaths = 0

    def leave(self, unit: str, node: str, why: str) -> bool:
        """A worker gives ``unit`` back for its device's sake; whether its node is to be avoided from now on."""
        self._forget(unit)
        self._left[node] += 1
        if self._left[node] >= LEAVES:
            self.avoided.add(node)
        return node in self.avoided

    def _forget(self, unit: str) -> None:
        for known in [known for known in self._begun if known == unit or known.startswith(f"{unit}/")]:
            del self._begun[known]


def _is_input(unit: str) -> bool:
    """Units are "load/WORKER", "STAGE/CHUNK" or, where inputs run alone, "STAGE/CHUNK/INPUT"."""
    return unit.count("/") == 2


def together(deaths: int) -> bool:
    """Whether a chunk with so many deaths behind it is tried in company."""
    return deaths < DEATHS_IN_COMPANY


class Streaks:
    """Holds the failed outcomes of each worker back until something is done by it, or the run ends."""

    def __init__(self) -> None:
        self._held: dict[str, list[Row]] = {}

    def take(self, worker: str, outcomes: Sequence[Row]) -> list[Row]:
        """The outcomes that can be recorded now.

        Raises:
            RunStopped: too many in a row failed.
        """
        if any(outcome["status"] == "done" for outcome in outcomes):
            return [*self._held.pop(worker, []), *outcomes]
        held = self._held.setdefault(worker, [])
        held += filter(_doubtful, outcomes)
        if len({outcome["input_uri"] for outcome in held}) >= FAILURES:
            last = held[-1]
            raise RunStopped(
                f"{FAILURES} inputs in a row failed, so it is not the inputs that are at fault; the last, "
                f"{last['input_uri']}: {last['error_type']}: {last['error']}"
            )
        return [outcome for outcome in outcomes if not _doubtful(outcome)]

    def rest(self) -> list[Row]:
        """What is still held, at the end of a run that came to its end."""
        held, self._held = self._held, {}
        return [outcome for rows in held.values() for outcome in rows]


def _doubtful(outcome: Row) -> bool:
    """Whether an outcome may be due to something else than its input."""
    return outcome["status"] == "failed" and not str(outcome["error"]).startswith(_ABSENT)
