"""Several slow iterators read at once, in an order that does not depend on how fast each is."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def interleaved(sources: Iterable[Iterator[T]], at_once: int) -> Iterator[T]:
    """What ``sources`` give: one thing of each of ``at_once`` in turn, the next source in the place of one that ends.

    Each is one step ahead, in a thread; so that much is held, whatever there is in all.
    """
    waiting = iter(sources)
    turn: deque[tuple[Iterator[T], Future[T]]] = deque()
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="list")

    def begin() -> None:
        if (source := next(waiting, None)) is not None:
            turn.append((source, pool.submit(next, source, _END)))

    try:
        for _ in range(at_once):
            begin()
        while turn:
            source, step = turn.popleft()
            if (found := step.result()) is _END:
                begin()
                continue
            turn.append((source, pool.submit(next, source, _END)))
            yield found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
