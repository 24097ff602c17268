"""The storage as the jobs see it: a proxy that counts what each job has written and spoils requests when told to."""

import re
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from tests.support.faulty_s3 import Action, FaultyS3, Request

JobName = Literal["stylize", "train"]
JOBS: tuple[JobName, ...] = ("stylize", "train")

_OF_JOB: dict[JobName, re.Pattern[str]] = {
    "stylize": re.compile(r"/(in|out)/"),
    "train": re.compile(r"/(references|train|checkpoints|catalog)/"),
}
_PROGRESS: dict[JobName, re.Pattern[str]] = {
    "stylize": re.compile(r"/out/images/"),
    "train": re.compile(r"/train/.*/state-|/checkpoints/.*/result\.json"),
}
"""Objects that show a job's progress as they are written."""
_SAVED: dict[JobName, re.Pattern[str]] = {
    "stylize": re.compile(r"/out/manifest/_delta_log/"),
    "train": _PROGRESS["train"],
}
"""Objects that the next run of a job goes on from."""

_FAILED = 300
"""HTTP statuses from here on."""


@dataclass
class Spell:
    """Requests of one job that are to go wrong."""

    job: JobName
    action: Action
    left: int
    happened: list[float] = field(default_factory=list)
    """When, by ``time.monotonic``."""


class Storm:
    """In front of the storage; one spell at a time."""

    def __init__(self, proxy: FaultyS3) -> None:
        self._progress: defaultdict[JobName, list[float]] = defaultdict(list)
        self._saved: defaultdict[JobName, list[float]] = defaultdict(list)
        self._spell: Spell | None = None
        self.requests = 0
        self._proxy = proxy
        proxy.answered = self._answered
        proxy.follow(self._plan)

    def cast(self, spell: Spell | None) -> None:
        """What goes wrong next; None: nothing."""
        self._spell = spell

    def progress(self, since: float, job: JobName | None = None) -> int:
        """Pictures written, and states and results of trainings, by one job or both, since then."""
        return sum(len(times) - bisect_right(times, since) for times in self._of(job, self._progress))

    def saved(self, since: float, job: JobName) -> int:
        """Commits of rows, or states and results."""
        return sum(len(times) - bisect_right(times, since) for times in self._of(job, self._saved))

    def next_progress(self, since: float, job: JobName) -> float | None:
        """When the job first made progress after that moment."""
        times = self._progress[job]
        place = bisect_right(times, since)
        return times[place] if place < len(times) else None

    def last_progress(self, job: JobName) -> float:
        """When the job last made progress; 0: never."""
        return self._progress[job][-1] if self._progress[job] else 0.0

    def _of(self, job: JobName | None, times: dict[JobName, list[float]]) -> list[list[float]]:
        return [times[name] for name in JOBS if job in (None, name)]

    def _plan(self, request: Request) -> Action:
        """Called under the proxy's lock."""
        self.requests += 1
        self._proxy.seen.clear()
        spell = self._spell
        if spell is None or not spell.left or not _OF_JOB[spell.job].search(unquote(request.path)):
            return "pass"
        if spell.action == "cut" and request.method != "GET":  # other answers have no body
            return "pass"
        spell.left -= 1
        spell.happened.append(time.monotonic())
        return spell.action

    def _answered(self, request: Request, status: int) -> None:
        if request.method not in ("PUT", "POST") or status >= _FAILED:
            return
        path = unquote(request.path)
        for job in JOBS:
            for pattern, times in ((_PROGRESS, self._progress), (_SAVED, self._saved)):
                if pattern[job].search(path):
                    with self._proxy.lock:
                        times[job].append(time.monotonic())
