"""A line that says how far a streaming job is: redrawn on a terminal, repeated now and then in a log."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from jobs.streaming.planning import Tally

LOG_SECONDS = 10.0


class ProgressLine:
    """Shows counts of (input, style) pairs their rate and what is left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._status: Status | None = None
        self._start = self._said = time.monotonic()
        self._first: float | None = None

    def __enter__(self) -> Self:
        self._start = self._said = time.monotonic()
        if self.console.is_terminal:
            self._status = self.console.status("starting workers")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def update(self, counts: Mapping[str, int], tally: Tally, variants: int) -> None:
        """Show ``counts`` of statuses decided so far by this run, of all pairs that ``tally`` knows of."""
        now = time.monotonic()
        if self._status:
            self._status.update(self._line(counts, tally, variants, now))
        elif now - self._said >= LOG_SECONDS:
            self._said = now
            self.console.print(self._line(counts, tally, variants, now), highlight=False)

    def _line(self, counts: Mapping[str, int], tally: Tally, variants: int, now: float) -> str:
        decided = sum(counts.values())
        self._first = self._first or (now if decided else None)
        total = (tally.inputs - tally.duplicates) * variants - tally.before.total()
        kinds = ", ".join(f"{counts.get(status, 0)} {status}" for status in ("done", "rejected", "failed"))
        line = f"{kinds} of {total}{'' if tally.listed else ' or more'}"
        busy = now - self._first if self._first else 0.0
        if not decided or not busy:
            return f"{line}; {now - self._start:.0f} s, waiting for the first"
        rate = decided / (now - self._start)
        left = f", {_duration((total - decided) / rate)} left" if tally.listed else ""
        return f"{line}; {rate:.2f} pictures/s, {_duration(now - self._start)}{left}"


def _duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
