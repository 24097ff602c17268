"""What workers all over the cluster share in a run: the chunks to be done, and what was begun and not ended.

:class:`Ledger` is what stages are given. One process holds the state; on a cluster that is an actor.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import pyarrow as pa

from jobs.streaming.failures import Attempts, NodeAvoided, RunStopped
from jobs.streaming.rows import CHUNK, one_row


class Ledger(Protocol):
    """How a stage tells what it begins and ends; see :class:`jobs.streaming.failures.Attempts`."""

    def begin(self, unit: str) -> int:
        """Earlier deaths over this unit."""
        ...

    def end(self, unit: str) -> None:
        """The unit is done."""
        ...

    def begin_loading(self) -> None:
        """This worker loads its base."""
        ...

    def end_loading(self) -> None:
        """It has."""
        ...

    def leave(self, unit: str, why: str) -> None:
        """This worker gives the unit back and is about to end its process.

        Raises:
            NodeAvoided: its node gets no more work.
        """
        ...

    def stop(self, why: str) -> None:
        """The run cannot go on; told here because Ray hands errors on as text, if at all."""
        ...


@dataclass
class LocalLedger:
    """For one process."""

    attempts: Attempts = field(default_factory=Attempts)

    def begin(self, unit: str) -> int:
        return self.attempts.begin(unit, "here", ["here"])

    def end(self, unit: str) -> None:
        self.attempts.end(unit)

    def begin_loading(self) -> None:
        self.attempts.begin_loading("worker", "here", ["here"])

    def end_loading(self) -> None:
        self.attempts.end_loading("worker", "here")

    def leave(self, unit: str, why: str) -> None:
        if self.attempts.leave(unit, "here", why):
            raise NodeAvoided(why)

    def stop(self, why: str) -> None:
        pass


class Coordinator:
    """The actor that holds the chunks under way and the attempts; chunks are taken by number, over and over if need be.

    A source that Ray runs again, after the loss of a node, gets nothing for chunks that are finished.
    """

    def __init__(self, workers: int) -> None:
        self._attempts = Attempts(workers)
        self._order: list[int] = []
        self._chunks: dict[int, pa.Table] = {}
        self._closed = False
        self._verdict: tuple[str, str] | None = None

    def put(self, number: int, chunk: pa.Table) -> None:
        self._order.append(number)
        self._chunks[number] = chunk

    def close(self) -> None:
        """There are no more."""
        self._closed = True

    def resize(self, workers: int) -> None:
        """So many workers can be there from now on."""
        self._attempts.workers = workers

    def finished(self, number: int) -> None:
        self._chunks.pop(number, None)

    def rewind(self) -> None:
        """Give out once more what is not finished, to other workers."""
        self._order = list(self._chunks)
        self._attempts.none_ready()

    def ready(self) -> int:
        """Workers that are there and have loaded."""
        return self._attempts.ready(_alive())

    async def take(self, place: int) -> pa.Table | None:
        """The chunk at this place, once there is one; None after the last."""
        while place >= len(self._order) and not self._closed:
            await asyncio.sleep(0.02)
        if place >= len(self._order):
            return None
        number = self._order[place]
        return self._chunks.get(number) or one_row({"chunk": number, "inputs": []}, CHUNK)

    def begin(self, unit: str, node: str) -> int:
        return self._judged(lambda: self._attempts.begin(unit, node, _alive()))

    def begin_loading(self, worker: str, node: str) -> None:
        self._judged(lambda: self._attempts.begin_loading(worker, node, _alive()))

    def end_loading(self, worker: str, node: str) -> None:
        self._attempts.end_loading(worker, node)

    def end(self, unit: str) -> None:
        self._attempts.end(unit)

    def leave(self, unit: str, node: str, why: str) -> bool:
        avoided = self._attempts.leave(unit, node, why)
        if avoided:
            self._verdict = ("avoid", why)
        return avoided

    def stop(self, why: str) -> None:
        """A worker ends the run."""
        self._verdict = self._verdict or ("stop", why)

    def verdict(self) -> tuple[str, str] | None:
        """("stop" or "avoid", why) where the run cannot go on as it does; asked once."""
        verdict, self._verdict = self._verdict, None
        return verdict

    def avoided(self) -> set[str]:
        """Nodes to be avoided."""
        return self._attempts.avoided

    def _judged(self, attempt: Callable[[], Any]) -> Any:
        try:
            return attempt()
        except RunStopped as stopped:
            self.stop(str(stopped))
            raise


@dataclass(frozen=True)
class Feed:
    """Brings chunks from the coordinator into Ray Data."""

    coordinator: Any

    def __call__(self, begin: pa.Table) -> Iterator[pa.Table]:
        import ray

        for place in count():
            chunk = ray.get(self.coordinator.take.remote(place))
            if chunk is None:
                return
            yield chunk


def _alive() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class RemoteLedger:
    """A ledger kept by a :class:`Coordinator`, seen from a task or an actor."""

    coordinator: Any

    def begin(self, unit: str) -> int:
        return int(self._ask("begin", unit, _node()))

    def end(self, unit: str) -> None:
        self._ask("end", unit)

    def begin_loading(self) -> None:
        self._ask("begin_loading", _worker(), _node())

    def end_loading(self) -> None:
        self._ask("end_loading", _worker(), _node())

    def leave(self, unit: str, why: str) -> None:
        if self._ask("leave", unit, _node(), why):
            raise NodeAvoided(why)

    def stop(self, why: str) -> None:
        self._ask("stop", why)

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self.coordinator, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, RunStopped) else error) from None


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _worker() -> str:
    """Of an actor, the same after a restart."""
    import ray

    return str(ray.get_runtime_context().get_actor_id())
