"""Where workers' time goes: each says what it did since it last gave results, and the driver adds that up."""

import time
from collections import Counter
from typing import Final, Literal

import pyarrow as pa

Kind = Literal["computing", "pictures", "styles", "storage", "driver"]

WAITS: Final[dict[Kind, str]] = {
    "pictures": "pictures to be read and decoded",
    "styles": "styles to be loaded",
    "storage": "results to be stored",
    "driver": "the driver to take results",
}
"""What a worker that does not compute waits for, in words."""

SPENT = pa.struct([(kind, pa.float64()) for kind in ("computing", *WAITS)])
"""Seconds of a worker by kind."""

BUSY = 0.9
"""Share of computing from which on it is what a run waits for."""


class Clock:
    """Of one worker."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._spent: Counter[str] = Counter()

    def lap(self, kind: Kind) -> None:
        """What it did since the last lap."""
        now = time.monotonic()
        self._spent[kind] += now - self._last  # type: ignore[assignment]  # seconds
        self._last = now

    def take(self) -> dict[str, float]:
        """A row of :data:`SPENT`: everything since this was last asked."""
        spent, self._spent = self._spent, Counter()
        return {field.name: float(spent[field.name]) for field in SPENT}


class Spent:
    """All workers' time so far."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def add(self, spent: dict[str, float] | None) -> None:
        """Of one row of results; None: of a version that does not say."""
        self.seconds.update(spent or {})  # type: ignore[arg-type]  # seconds

    @property
    def computing(self) -> float | None:
        """Share of the time in which devices computed; None before the first results."""
        total = self.seconds.total()
        return self.seconds["computing"] / total if total else None

    @property
    def waits_for(self) -> Kind | None:
        """What most of the rest was spent on; None where devices are busy, or nothing is known."""
        share = self.computing
        if share is None or share >= BUSY:
            return None
        return max(WAITS, key=lambda kind: self.seconds[kind])
