"""How many chunks may be under way, as workers come and go."""

import threading

CHUNKS_AHEAD = 3
"""Chunks under way for each worker, the one that it computes included: bounds memory, whatever the number of inputs."""


class Room:
    """Counts chunks under way; :data:`CHUNKS_AHEAD` for each worker."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._under_way = 0
        self._changed = threading.Condition()

    def take(self, timeout: float) -> bool:
        """Begin a chunk once there is room for one; False if there is none for ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(self._is_free, timeout):
                return False
            self._under_way += 1
            return True

    def give_back(self) -> None:
        """A chunk is finished."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    def resize(self, workers: int) -> None:
        """For so many workers from now on; with fewer, what is under way stays so."""
        with self._changed:
            self._workers = workers
            self._changed.notify()

    def _is_free(self) -> bool:
        return self._under_way < CHUNKS_AHEAD * self._workers
