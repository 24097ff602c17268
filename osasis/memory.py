"""Gradients within the memory that there is: where it runs out, the same is computed with less of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class MemoryUse:
    """What an update's gradient keeps in memory. Neither changes a result but by rounding, and dropout's masks.

    recompute: activations are computed again instead of being kept; contents: how many are computed at once, 0: all.
    """

    recompute: bool
    contents: int

    def of(self, count: int) -> "MemoryUse":
        """For an update of so many contents."""
        return MemoryUse(self.recompute, min(self.contents or count, count))

    def less(self) -> "MemoryUse | None":
        """The next that takes less: recomputing costs a third more work, and halves cost the style branch again each.

        None: there is none.
        """
        if not self.recompute:
            return MemoryUse(True, self.contents)
        return MemoryUse(True, (self.contents + 1) // 2) if self.contents > 1 else None

    def __str__(self) -> str:
        kept = "activations recomputed" if self.recompute else "activations kept"
        return f"{kept}, {self.contents} contents at once"


def within_memory(compute: Callable[[MemoryUse], T], use: MemoryUse) -> tuple[T, MemoryUse]:
    """(``compute(use)``, ``use``), with the first ``use`` from the given one downwards for which there is memory.

    Each attempt draws the same random numbers.

    Raises:
        torch.OutOfMemoryError: there is not enough for the least.
    """
    while True:
        random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        try:
            return compute(use), use
        except torch.OutOfMemoryError as error:
            said = str(error)
        # Outside of the handler, so that the traceback with all the tensors of its frames is gone.
        less = use.less()
        if less is None:
            raise torch.OutOfMemoryError(said)
        use = less
        torch.set_rng_state(random[0])
        if random[1]:
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state_all(random[1])


def limit_gpu_memory(most: int, device: torch.device) -> None:
    """Let this process allocate at most so many bytes of a GPU's memory; CUDA itself takes some beside them."""
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), device)
