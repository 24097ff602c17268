"""Waiting for a cluster to have room: what is missing is asked for, and told seldom.

An autoscaler brings nodes for what waits to be placed; without one, nodes are waited for that somebody starts.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import ray
from ray.util import placement_group, placement_group_table, remove_placement_group

from cluster.commandline.durations import in_words
from cluster.runtime.connection import ClusterError, ClusterInfo
from cluster.runtime.loss import is_lost
from cluster.runtime.resources import Node, Resources, capacity, lacking, nodes, warn_of_unused

POLL_S = 0.5
_SAID_EVERY_S = 60.0

log = logging.getLogger(__name__)


class Patience:
    """How long one thing is waited for. The first word, and one a minute from then on, are logged."""

    def __init__(self, most: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._since: float | None = None
        self._said = 0.0

    def wait(self, what: str) -> bool:
        """``what`` is missing now; False once that has lasted too long."""
        now = self._clock()
        if not self._most:
            return False
        if self._since is None:
            self._since, self._said = now, now
            log.warning("%s: waiting for it, up to %s (--wait)", what, in_words(self._most))
        elif now - self._said >= _SAID_EVERY_S:
            self._said = now
            log.warning("%s: %s of %s", what, in_words(timedelta(seconds=now - self._since)), in_words(self._most))
        return now - self._since < self._most.total_seconds()

    def over(self) -> None:
        """It is there; should it be missing again, that is waited for anew."""
        if self._since is not None:
            log.warning("there after %s", in_words(timedelta(seconds=self._clock() - self._since)))
        self._since = None


class Asking:
    """Asks for workers that are missing: each is a placement group that waits, and is let go when it was placed.

    It holds nothing of the cluster but for that moment, and ends with this process, however that ends. (Bundles given
    to ``ray.autoscaler.sdk.request_resources`` would be kept up for ever after a job that is killed.)
    """

    def __init__(self) -> None:
        self._groups: list[Any] = []
        self._of: Resources | None = None

    def keep(self, resources: Resources, count: int) -> None:
        """So many workers of this kind are missing now."""
        if resources != self._of:
            self.close()
            self._of = resources
        states = placement_group_table() if self._groups else {}  # type: ignore[no-untyped-call]
        placed = [group for group in self._groups if states.get(group.id.hex(), {}).get("state") == "CREATED"]
        waiting = [group for group in self._groups if group not in placed]
        surplus = waiting[count:]
        self._groups = waiting[:count]
        for group in [*placed, *surplus]:
            remove_placement_group(group)
        selector = [resources.selector()] if resources.selector() else None
        for _ in range(count - len(self._groups)):
            self._groups.append(placement_group([resources.bundle()], bundle_label_selector=selector))

    def close(self) -> None:
        """Nothing is missing any more."""
        for group in self._groups:
            remove_placement_group(group)
        self._groups = []


@contextmanager
def asking() -> Iterator[Asking]:
    """An :class:`Asking`, which ends with the body."""
    found = Asking()
    try:
        yield found
    finally:
        if ray.is_initialized() and not is_lost():
            found.close()


def room_for(
    settle: Callable[[Sequence[Node]], Resources], cluster: ClusterInfo, most: timedelta, wanted: int = 1
) -> Resources:
    """What a worker takes, once one fits on a node of the cluster: where none does, that is waited for.

    Args:
        settle: what a worker would take of a cluster with these nodes.
        most: how long to wait; 0: not at all. Of a Ray that this process started, nothing is to be expected.
        wanted: workers to ask for meanwhile.

    Raises:
        ClusterError: none fits, in time.
    """
    patience = Patience(most)
    with asking() as asked:
        while True:
            there = nodes()
            resources = settle(there)
            if capacity(resources, there):
                patience.over()
                warn_of_unused(resources, there)
                return resources
            what = lacking(resources, there)
            if cluster.started_here or not patience.wait(what):
                raise ClusterError(f"{what}; ask for less or add a node")
            asked.keep(resources, wanted)
            time.sleep(POLL_S)
