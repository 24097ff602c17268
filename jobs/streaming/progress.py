"""A line that says how far a stylize job is: redrawn on a terminal, repeated now and then in a log."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

LOG_SECONDS = 10.0


class ProgressLine:
    """Shows counts of (input, style) pairs and their rate since it was entered."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._status: Status | None = None
        self._start = self._said = time.monotonic()

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

    def update(self, counts: Mapping[str, int]) -> None:
        """Show ``counts`` of statuses decided so far by this run."""
        now = time.monotonic()
        if self._status:
            self._status.update(self._line(counts, now))
        elif now - self._said >= LOG_SECONDS:
            self._said = now
            self.console.print(self._line(counts, now), highlight=False)

    def _line(self, counts: Mapping[str, int], now: float) -> str:
        decided = ", ".join(f"{counts.get(status, 0)} {status}" for status in ("done", "rejected", "failed"))
        elapsed = now - self._start
        return f"{decided}; {sum(counts.values()) / elapsed if elapsed else 0:.2f} images/s, {elapsed:.0f} s"
