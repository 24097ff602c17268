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


def within_memory(
    compute: Callable[[MemoryUse], T], use: MemoryUse, anywhere: Callable[[bool], bool] = bool
) -> tuple[T, MemoryUse]:
    """(``compute(use)``, ``use``), with the first ``use`` from the given one downwards for which there is memory.

    Each attempt draws the same random numbers. ``anywhere``: whether something is so in any of the processes that
    compute together, which go down together.

    Raises:
        torch.OutOfMemoryError: there is not enough for the least.
    """
    while True:
        random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        found, said = _tried(compute, use)
        if not anywhere(found is None):
            assert found is not None
            return found[0], use
        found = None
        less = use.less()
        if less is None:
            raise torch.OutOfMemoryError(said or "in another process of this style")
        use = less
        torch.set_rng_state(random[0])
        if random[1]:
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state_all(random[1])


def _tried(compute: Callable[[MemoryUse], T], use: MemoryUse) -> tuple[tuple[T] | None, str]:
    """(the result, or None where memory ran out; what was said then). Its tensors are gone with the traceback."""
    try:
        return (compute(use),), ""
    except torch.OutOfMemoryError as error:
        return None, str(error)


def limit_gpu_memory(most: int, device: torch.device) -> None:
    """Let this process allocate at most so many bytes of a GPU's memory; CUDA itself takes some beside them."""
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), device)
