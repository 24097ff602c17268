"""The styles that wait to be trained, which worker trains which, and what follows when a worker dies.

A style whose worker died, or could not go on, goes to the end of the queue, up to ``max_failures`` times; then it has
failed, and the others go on. A style that was given back, since its node is about to go, or lost with its node, is no
failure.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ray

from jobs.finetuning.admission import Usage

if TYPE_CHECKING:  # whoever gets a handle of the queue loads this module: Ray Train's processes too, without torch
    from jobs.finetuning.plan import StylePlan


@dataclass(frozen=True)
class Outcome:
    """How one style's training ended; ``error`` is None where it came to its end.

    ``seconds`` of the last worker, which did ``iterations`` of it.
    """

    style_id: str
    error: str | None
    seconds: float = 0.0
    iterations: int = 0


@dataclass(frozen=True)
class Task:
    """A style for a worker to train. ``again``: another worker of this job began it and may still seem to live."""

    plan: "StylePlan"
    again: bool


@dataclass
class Report:
    """What has changed since the last report, and how much is left."""

    unfinished: int
    training: int = 0
    """Styles that workers have."""
    rows: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Progress of the styles under way: iterations done, of, loss."""
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended_by: set[str] = field(default_factory=set)
    """Workers that brought a style to its end, trained or not."""
    usages: dict[str, Usage] = field(default_factory=dict)
    """Memory that workers have taken."""


class StyleQueue:
    """Plans and names alone: no picture and no weight goes through it."""

    def __init__(self, plans: "Sequence[StylePlan]", max_failures: int) -> None:
        self._plans = {plan.style_id: plan for plan in plans}
        self._waiting = deque(self._plans)
        self._running: dict[str, str] = {}
        """Worker → style."""
        self._failures: Counter[str] = Counter()
        self._begun: set[str] = set()
        self._max_failures = max_failures
        self._news = Report(0)

    def take(self, worker: str) -> Task | None:
        """The next style for a worker; None: there is none. What it had begun before is what it died of."""
        self.failed(worker, "its worker died")
        if not self._waiting:
            return None
        style_id = self._waiting.popleft()
        self._running[worker] = style_id
        again = style_id in self._begun
        self._begun.add(style_id)
        return Task(self._plans[style_id], again)

    def ended(self, worker: str, error: str | None = None, seconds: float = 0.0, iterations: int = 0) -> None:
        """The worker's style, if it still is its own, is trained, or fails however often it is tried."""
        self._news.ended_by.add(worker)
        self._close(worker, error, seconds, iterations)

    def failed(self, worker: str, error: str) -> None:
        """The worker's style, if it has one, failed this time."""
        style_id = self._running.get(worker)
        if style_id is None:
            return
        self._failures[style_id] += 1
        if self._failures[style_id] > self._max_failures:
            times = self._failures[style_id]
            self._close(worker, error if times == 1 else f"{error} ({times} times)")
        else:
            self._news.notes.append(f"{style_id}: {error}; it is resumed")
            self.give_back(worker)

    def give_back(self, worker: str) -> None:
        """The worker's style, if it has one, is another's to go on with."""
        if style_id := self._running.pop(worker, None):
            self._waiting.append(style_id)

    def abandon(self, error: str) -> None:
        """No worker can be had: the styles that wait have failed."""
        while self._waiting:
            self._news.outcomes.append(Outcome(self._waiting.popleft(), error))

    def progress(self, worker: str, done: int, total: int, loss: float) -> None:
        if style_id := self._running.get(worker):
            self._news.rows[style_id] = (done, total, loss)

    def used(self, worker: str, usage: Usage) -> None:
        self._news.usages[worker] = usage

    def note(self, text: str) -> None:
        self._news.notes.append(text)

    def report(self) -> Report:
        news, self._news = self._news, Report(0)
        news.training = len(self._running)
        news.unfinished = len(self._waiting) + news.training
        return news

    def _close(self, worker: str, error: str | None, seconds: float = 0.0, iterations: int = 0) -> None:
        if style_id := self._running.pop(worker, None):
            self._news.outcomes.append(Outcome(style_id, error, seconds, iterations))


QueueActor = ray.remote(num_cpus=0, max_restarts=0)(StyleQueue)
"""A :class:`StyleQueue` on the driver's node."""
