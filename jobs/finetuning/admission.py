"""How many workers a node takes, by the memory that one was measured to need."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor

from cluster.runtime.resources import Resources, fitting

UNMEASURED = 4 * 2**30
"""Memory that a worker on CPUs is given as long as none was measured."""
_BESIDE = 6 * 10**8
"""What Ray Train's own processes take for a worker: five of 0.11 GB."""
_OF_GPU = 0.95
_STEP = 10**4
"""Ray counts resources to 1/10000."""


@dataclass(frozen=True)
class Usage:
    """The most that a worker has taken. Bytes; ``gpu_total``: what its GPU has, 0 without one."""

    memory: int
    gpu_memory: int = 0
    gpu_total: int = 0

    def or_more(self, other: "Usage") -> "Usage":
        return Usage(
            max(self.memory, other.memory), max(self.gpu_memory, other.gpu_memory), max(self.gpu_total, other.gpu_total)
        )


def room(resources: Resources, node: Mapping[str, float], usage: Usage | None) -> int:
    """Workers that a node takes.

    Args:
        resources: what a worker asks for: the most that may share a node or a GPU.
        node: what the node has, as Ray names it; ``memory`` is what Ray found to be there for workers.
        usage: None: nothing is measured yet.
    """
    asked = fitting(resources, node)
    gpus = floor(node.get("GPU", 0))
    memory = node.get("memory", float("inf"))
    if usage is None:
        known = 1 if 0 < resources.gpus < 1 else asked
        return min(asked, known, asked if resources.gpus else max(1, floor(memory / UNMEASURED)))
    by_gpu = gpus * _per_gpu(usage) if 0 < resources.gpus < 1 else asked
    return min(asked, max(1, by_gpu), max(1, floor(memory / (usage.memory + _BESIDE))))


def share(resources: Resources, usage: Usage | None) -> Resources:
    """What a further worker asks for: so much of a GPU that Ray puts no more workers on one than its memory holds."""
    if usage is None or not 0 < resources.gpus < 1:
        return resources
    return replace(resources, gpus=max(resources.gpus, floor(_STEP / _per_gpu(usage)) / _STEP))


def _per_gpu(usage: Usage) -> int:
    return max(1, floor(_OF_GPU * usage.gpu_total / usage.gpu_memory)) if usage.gpu_memory else 1
