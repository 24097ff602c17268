"""How far a streaming job is: a bar on a terminal, a line now and then in a log; both from :class:`Progress`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from cluster.commandline.durations import in_words
from jobs.streaming.planning import Tally
from jobs.streaming.spent import WAITS, Kind, Spent

LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """The numbers, for people and metrics. Pairs are of (input, style)."""

    counts: Mapping[str, int]
    """Pairs decided by this run, by status."""
    known: int
    """Pairs to be decided by this run, as far as inputs are listed."""
    listed: bool
    """Whether that is all."""
    seconds: float
    rate: float | None
    """Pairs a second since the start; None before there are some."""
    computing: float | None
    """Share of workers' time in which their devices computed."""
    workers: int
    """Those that have loaded, on nodes that are there."""
    waits_for: Kind | None
    """What they spend most of the rest on; None where they are busy."""

    @property
    def decided(self) -> int:
        return sum(self.counts.values())

    @property
    def left(self) -> float | None:
        """Seconds to the end; None where that cannot be told."""
        return (self.known - self.decided) / self.rate if self.listed and self.rate else None

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.counts.get(status, 0)} {status}" for status in ("done", "rejected", "failed"))
        line = f"{kinds} of {self.known}{'' if self.listed else ' or more'}"
        workers = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        if self.rate is None:
            return f"{line}; {self.seconds:.0f} s, {workers}, waiting for the first"
        left = "" if self.left is None else f", {_duration(self.left)} left"
        busy = "" if self.computing is None else f"; computing {self.computing:.0%} of the time"
        waits = f", waiting for {WAITS[self.waits_for]}" if self.waits_for else ""
        return f"{line}; {self.rate:.2f} pictures/s by {workers}, {_duration(self.seconds)}{left}{busy}{waits}"


def progress(
    counts: Mapping[str, int], tally: Tally, variants: int, spent: Spent, workers: int, seconds: float
) -> Progress:
    """``counts``: statuses decided so far by this run, of all pairs that ``tally`` knows of; ``seconds``: it runs."""
    known = (tally.inputs - tally.duplicates) * variants - tally.before.total()
    decided = sum(counts.values())
    rate = decided / seconds if decided and seconds else None
    return Progress(dict(counts), known, tally.listed, seconds, rate, spent.computing, workers, spent.waits_for)


class ProgressLine:
    """Shows :class:`Progress`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._start = self._said = time.monotonic()
        if self.console.is_terminal:
            text = TextColumn("{task.description}", markup=False)
            self._bar = Bar(BarColumn(20), text, console=self.console, transient=True)
            self._task = self._bar.add_task("starting workers", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, counts: Mapping[str, int], tally: Tally, variants: int, spent: Spent, workers: int) -> Progress:
        """Show how far it is, and tell."""
        now = time.monotonic()
        said = progress(counts, tally, variants, spent, workers, now - self._start)
        if self._bar:
            total = said.known if said.listed else None
            self._bar.update(self._task, description=str(said), total=total, completed=said.decided)
        elif now - self._said >= LOG_SECONDS:
            self._said = now
            self.console.print(str(said), highlight=False, markup=False)
        return said


def _duration(seconds: float) -> str:
    return in_words(timedelta(seconds=seconds))
