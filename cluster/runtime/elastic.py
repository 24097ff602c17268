"""Workers that a run can have, as nodes come and go."""

import logging
import time
from collections.abc import Callable

from cluster.runtime.resources import Resources, capacity, lacking, nodes
from cluster.runtime.target import WorkersWanted
from cluster.runtime.waiting import Asking, Patience

_LOOK_EVERY_S = 2.0

log = logging.getLogger(__name__)


class NoNodeLeft(Exception):
    """Nodes have gone, and none came in time; the message is for people."""


class Elastic:
    """How many workers the cluster has room for, now and later; what the target lacks is asked for.

    Args:
        whole: what a worker takes, with all that is set aside for it.
        wanted: how many, and how long to wait where no node is left that one fits on.
        asked: by which they are asked for.
        clock: in seconds.
    """

    def __init__(
        self, whole: Resources, wanted: WorkersWanted, asked: Asking, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._whole, self._target, self._clock = whole, wanted.workers, clock
        self._patience = Patience(wanted.wait, clock)
        self._asked = asked
        self._looked = clock()
        self.now = wanted.workers.of(capacity(whole, nodes()))

    @property
    def most(self) -> int | None:
        """How many are ever used; None: no limit."""
        return self._target.most

    def look(self, work: int | None = None) -> bool:
        """Look at the cluster, every few seconds; whether ``now`` has changed.

        Args:
            work: for how many workers there is any; None: for all.

        Raises:
            NoNodeLeft: no node is left for any worker, and none came within the time to wait.
        """
        if self._clock() - self._looked < _LOOK_EVERY_S:
            return False
        self._looked, before = self._clock(), self.now
        there = nodes()
        target = self._target if work is None else self._target.within(work)
        self.now = self._target.of(capacity(self._whole, there))
        self._asked.keep(self._whole, target.missing(self.now))
        if self.now:
            self._patience.over()
        elif not self._patience.wait(what := lacking(self._whole, there)):
            raise NoNodeLeft(f"no worker is left: {what}; give the same command again once there is one")
        if self.now == before:
            return False
        log.info("nodes have changed: room for %d workers, %d before", self.now, before)
        return True
