"""How many workers a job wants: ``8``, ``2-64`` or ``auto``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from cluster.runtime.resources import Node, Resources


@dataclass(frozen=True)
class Target:
    """``least`` are asked for at once; up to ``most`` are used as there is room and work. ``most``: None: no limit."""

    least: int = 1
    most: int | None = None

    @classmethod
    def parse(cls, text: object) -> "Target":
        """Of a flag.

        Raises:
            ValueError: it is none of the three.
        """
        if isinstance(text, Target):
            return text
        said = str(text).strip()
        if said == "auto":
            return cls()
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", said)
        if not found or isinstance(text, bool):
            raise ValueError(f"must be a number such as 8, a range such as 2-64, or auto, not {said!r}")
        least, most = int(found[1]), int(found[2] or found[1])
        if least < 1 or most < least:
            raise ValueError(f"must be at least 1, the smaller number first, not {said!r}")
        return cls(least, most)

    def of(self, room: int) -> int:
        """How many of ``room`` workers, or pieces of work, are wanted."""
        return room if self.most is None else min(room, self.most)

    def within(self, work: int) -> "Target":
        """The target of a job that has work for so many at most."""
        return Target(min(self.least, work), self.of(work))

    def missing(self, there: int) -> int:
        """How many are to be asked for beside those that are there."""
        return max(0, self.least - there)

    def __str__(self) -> str:
        if self.most is None:
            return "auto"
        return str(self.most) if self.least == self.most else f"{self.least}-{self.most}"


class WorkersWanted(Protocol):
    """How many workers, of what kind, and how long to wait for the first."""

    @property
    def workers(self) -> Target: ...
    @property
    def wait(self) -> timedelta: ...
    def resources(self, there: Sequence[Node]) -> Resources:
        """What each takes of a cluster that holds these nodes."""
        ...
