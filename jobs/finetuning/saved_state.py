"""The states that a training saves as it goes: written beside the computation, whole or absent, the newest two kept.

A state is ``train/<run>/state-<iteration>.pt``. A damaged one costs iterations and not the training.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from catalog.style_folder import STATES
from cluster.storage import Storage, StorageError

_KEPT = 2
_Say = Callable[[str], object]


def states_of(storage: Storage, run_name: str) -> Storage:
    return storage.child(STATES, run_name)


def newest_state(run: Storage, say: _Say) -> dict[str, Any] | None:
    """The newest state of a run that can be read, for the CPU; None to begin anew. ``say`` is told of damaged ones.

    Raises:
        StorageError: storage does not answer.
    """
    names = _states(run)[::-1]
    for i, name in enumerate(names):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "state.pt"
            run.download_file(name, local)
            try:
                state: dict[str, Any] = torch.load(local, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises one of many kinds, depending on where a file is cut
                rest = "the one before is used" if i + 1 < len(names) else "the training starts over"
                say(f"{run.child_uri(name)}: damaged ({type(error).__name__}); {rest}")
            else:
                return state
    return None


def remove_states(run: Storage) -> None:
    """Of a training that is registered; also what former versions left in the folder. Raises StorageError."""
    for name in run.list_files():
        run.delete(name)


class StateSaver:
    """Saves states of one training in a thread, at most every ``every_s`` seconds and one at a time.

    A state that cannot be stored is reported to ``say``, and the training goes on: the next one is due as usual.
    """

    def __init__(self, run: Storage, every_s: float, say: _Say) -> None:
        self._run = run
        self._every_s = every_s
        self._say = say
        self._saved_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self.bytes = 0
        """Size of the newest state."""

    @property
    def due(self) -> bool:
        """Whether it is time for another, and none is being written."""
        busy = self._thread is not None and self._thread.is_alive()
        return not busy and time.monotonic() - self._saved_at >= self._every_s

    def save(self, iteration: int, state: dict[str, Any]) -> None:
        """Copy the state, which the training may change then, and write the copy; ends the write before it first."""
        self.close()
        self._saved_at = time.monotonic()
        self._thread = threading.Thread(target=self._write, args=(iteration, _copied(state)), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until what is being written is stored."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, iteration: int, state: dict[str, Any]) -> None:
        name = f"state-{iteration:08d}.pt"
        try:
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / name
                torch.save(state, local)
                self.bytes = local.stat().st_size
                self._run.upload_file(local, name)
            for old in _states(self._run)[:-_KEPT]:
                self._run.delete(old)
        except (StorageError, OSError) as error:
            self._say(f"{self._run.child_uri(name)} was not saved: {error}")


def _states(run: Storage) -> list[str]:
    """Names, oldest first."""
    return sorted(name for name in run.list_files(recursive=False) if name.startswith("state-"))


def _copied(value: Any) -> Any:
    """Nested dicts and lists with every tensor copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
