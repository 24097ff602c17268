"""The faults, one after the other by the seed, each when the jobs have got on far enough since the one before."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import psutil

from benchmarks.faults_parts.job import Job
from benchmarks.faults_parts.storm import JOBS, JobName, Spell, Storm
from tests.support.faulty_s3 import Action
from tests.support.ray_nodes import Nodes

FEWEST, MOST = 2, 4
"""Workers of the cluster, beside its head."""
WAIT_S = 60.0
"""After so long without the progress that a fault waits for, it comes all the same, or another does."""
HUNG_S = 300.0
"""A job that runs so long without progress hangs."""
_TICK_S, _MEASURE_S = 0.1, 20.0
_WORKERS: dict[JobName, str] = {"stylize": "MapBatches(Stylizer", "train": "RayTrainWorker"}
"""How Ray titles the processes that compute."""

_DECK = (
    *["node killed", "node added"] * 3, "all nodes killed",
    *["stylize worker killed", "train worker killed", "stylize killed", "train killed"] * 2,
)  # fmt: skip
_OF_STORAGE = [f"{job} {action}" for job in JOBS for action in ("503", "reset", "reset-after", "cut")]
DECK = 20
"""Kinds are drawn from shuffled decks of so many: those of ``_DECK``, and some of storage's."""


class Hung(Exception):
    """A job makes no progress."""


@dataclass
class Awaited:
    """Progress of a job. ``gone``: processes of a killed run, whose last pictures are none of the next one's."""

    since: float
    gone: list[psutil.Process]


@dataclass
class Fault:
    """Something that has happened, and how many seconds after it each job that it could hinder got on."""

    kind: str
    at: float
    awaited: dict[JobName, Awaited]
    took: dict[JobName, float] = field(default_factory=dict)


class Trial:
    """Jobs, nodes and storage under faults.

    Args:
        begin: starts the next round of a job.
        count: how many faults.
    """

    def __init__(self, nodes: Nodes, storm: Storm, begin: Callable[[JobName], Job], seed: int, count: int) -> None:
        self.nodes, self.storm, self._begin, self.count = nodes, storm, begin, count
        self._random = random.Random(seed)
        self._drawn: list[str] = []
        self.faults: list[Fault] = []
        self.jobs: dict[JobName, Job] = {}
        self.ends: Counter[tuple[JobName, int]] = Counter()
        self.rounds: Counter[JobName] = Counter()
        self.most_bytes = 0
        self._through: set[JobName] = set()
        self._spell: tuple[str, Spell] | None = None
        self._last = self._measured = self._start = time.monotonic()
        self._after = 1

    def run(self) -> None:
        """Until all faults have happened and both jobs have done everything.

        Raises:
            Hung: a job makes no progress.
        """
        try:
            while len(self._through) < len(JOBS):
                self._tend()
                self._look()
                if len(self.faults) < self.count and self._due():
                    self._strike()
                time.sleep(_TICK_S)
        finally:
            self.storm.cast(None)
            for job in self.jobs.values():
                job.stop()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:5.0f} s, {len(self.faults):3} faults: {text}", flush=True)

    @property
    def is_through(self) -> bool:
        """Whether all faults have happened, and both jobs have ended well after them."""
        return len(self.faults) >= self.count and self._through == {*JOBS}

    @property
    def minutes(self) -> float:
        """Since the start."""
        return (time.monotonic() - self._start) / 60

    # The jobs

    def _tend(self) -> None:
        """Begin rounds, and give commands again that ended otherwise than well."""
        for name in JOBS:
            if name in self._through:
                continue
            job = self.jobs.get(name)
            if job and job.runs():
                continue
            if job:
                self.ends[name, job.code] += 1
                if job.code:
                    self.say(f"{name} ended with {job.code}, and is given again: {job.last_words()}")
                    job.start()
                    continue
                if len(self.faults) >= self.count:
                    self._through.add(name)
                    self.say(f"{name} is through")
                    continue
            self.rounds[name] += 1
            self.jobs[name] = self._begin(name)

    def _look(self) -> None:
        now = time.monotonic()
        for fault in self.faults:
            for name, awaited in [*fault.awaited.items()]:
                if any(map(_lives, awaited.gone)):
                    awaited.since = now
                elif (then := self.storm.next_progress(awaited.since, name)) or name in self._through:
                    fault.took[name] = (then or now) - fault.at
                    del fault.awaited[name]
        if now - self._measured > _MEASURE_S:
            self._measured = now
            self.most_bytes = max(self.most_bytes, _memory())
        for name in {*JOBS} - self._through:
            job = self.jobs[name]
            if now - max(job.started, self.storm.last_progress(name)) > HUNG_S:
                raise Hung(f"{name} has made no progress for {HUNG_S:.0f} s:\n{job.last_words(20)}")

    # The faults

    def _due(self) -> bool:
        now = time.monotonic()
        if self._spell:
            kind, spell = self._spell
            if spell.happened:
                self._spell = None
                self._happened(kind, f"{spell.action} to {spell.job}", [spell.job], at=spell.happened[0])
            elif now - self._last > WAIT_S:
                self.storm.cast(None)
                self._spell = None
            return False
        return self.storm.progress(self._last) >= self._after or now - self._last > WAIT_S

    def _strike(self) -> None:
        """The next kind that is possible now; those before it stay on top."""
        for place, kind in enumerate(self._drawn):
            if self._try(kind):
                del self._drawn[place]
                return
        if not self._drawn or time.monotonic() - self._last > WAIT_S:
            deck = [*_DECK, *self._random.sample(_OF_STORAGE, DECK - len(_DECK))]
            self._drawn += self._random.sample(deck, len(deck))

    def _try(self, kind: str) -> bool:
        """Whether it has happened, or is on its way."""
        if kind in self._of_nodes:
            return self._of_nodes[kind](kind)
        name: JobName = "stylize" if kind.startswith("stylize") else "train"
        rest = kind.removeprefix(f"{name} ")
        if name in self._through or not self.jobs[name].runs():
            return False
        if rest == "worker killed":
            return self._kill_worker(kind, name)
        if rest == "killed":
            return self._kill_job(kind, name)
        action: Action = rest  # type: ignore[assignment]
        self._spell = kind, Spell(name, action, self._random.randint(1, 6))
        self.storm.cast(self._spell[1])
        self._last = time.monotonic()
        return True

    @property
    def _of_nodes(self) -> dict[str, Callable[[str], bool]]:
        return {"node killed": self._kill_node, "node added": self._add_node, "all nodes killed": self._kill_all}

    def _kill_node(self, kind: str) -> bool:
        if len(self.nodes.workers) <= FEWEST:
            return False
        self.nodes.kill(self._random.choice(self.nodes.workers))
        self._happened(kind, f"{len(self.nodes.workers)} left", JOBS)
        return True

    def _add_node(self, kind: str) -> bool:
        if len(self.nodes.workers) >= MOST:
            return False
        self.nodes.add()
        self._happened(kind, f"{len(self.nodes.workers)} now", JOBS)
        return True

    def _kill_all(self, kind: str) -> bool:
        """And then others come: until then no job can get on."""
        if not all(self.storm.progress(self.jobs[name].started, name) for name in JOBS):
            return False  # a job that finds no node when it starts says so and ends
        at, killed = time.monotonic(), len(self.nodes.workers)
        for node in [*self.nodes.workers]:
            self.nodes.kill(node)
        for _ in range(FEWEST):
            self.nodes.add()
        self._happened(kind, f"{killed} killed, {FEWEST} added", JOBS, at=at)
        return True

    def _kill_worker(self, kind: str, name: JobName) -> bool:
        there = [process for process in self.nodes.processes(_WORKERS[name]) if _lives(process)]
        if not there or not self.storm.progress(self.jobs[name].started, name):
            return False
        victim = self._random.choice(there)
        victim.kill()
        self._happened(kind, f"1 of {len(there)}", [name])
        return True

    def _kill_job(self, kind: str, name: JobName) -> bool:
        job = self.jobs[name]
        if not self.storm.saved(job.started, name):
            return False
        workers, at = self.nodes.processes(_WORKERS[name]), time.monotonic()
        if not job.kill():
            return False
        job.start()
        self._happened(kind, f"with {len(workers)} workers, and given again", [name], at=at, gone=workers)
        return True

    def _happened(
        self, kind: str, what: str, hindered: Sequence[JobName], *, at: float = 0.0, gone: Sequence[psutil.Process] = ()
    ) -> None:
        now = time.monotonic()
        awaited = {name: Awaited(at or now, [*gone]) for name in hindered if name not in self._through}
        self.faults.append(Fault(kind, at or now, awaited))
        self._last, self._after = now, self._random.randint(2, 12)
        self.say(f"{kind}, {what}")

    # What is told

    def table(self) -> Iterator[str]:
        """Kinds of faults, and the seconds until the jobs that they could hinder got on."""
        took: defaultdict[tuple[str, JobName], list[float]] = defaultdict(list)
        for fault in self.faults:
            for name, seconds in fault.took.items():
                took[fault.kind, name].append(seconds)
        yield "| fault | times | stylize got on after, median and most | train |"
        yield "|---|---|---|---|"
        for kind, times in sorted(Counter(fault.kind for fault in self.faults).items()):
            cells = [
                f"{median(took[kind, name]):.1f} s, {max(took[kind, name]):.1f} s" if took[kind, name] else ""
                for name in JOBS
            ]
            yield f"| {kind} | {times} | {' | '.join(cells)} |"


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _memory() -> int:
    """Bytes of this process and all that it has started: their proportional set size."""
    total = 0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total
