"""What a cluster holds, and how many workers of a kind fit into it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

from cluster.runtime.connection import ClusterError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one worker needs; fractions are allowed."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def ray_options(self) -> dict[str, float]:
        """For ``.options()`` of tasks and actors."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


def capacity(resources: Resources) -> int:
    """How many workers of this kind the connected cluster can run at the same time, counted node by node.

    It counts what the nodes have, not what is free of other jobs. That GPUs are left unused is logged.

    Raises:
        ClusterError: not even one fits on any node.
        ValueError: it needs nothing, so that any number would fit.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    total = sum(fitting(resources, node) for node in nodes)
    if total == 0:
        there = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "none"
        raise ClusterError(
            f"one worker needs {resources}, which no node of the cluster has (nodes: {there}); "
            "ask for less or add a node"
        )
    if (gpus := sum(node.get("GPU", 0.0) for node in nodes)) and not resources.gpus:
        log.warning("the cluster has GPUs (%g), and this job computes on CPUs: --gpus-per-worker 1 uses them", gpus)
    return total


def fitting(resources: Resources, node: Mapping[str, float]) -> int:
    """How many workers of this kind a node has room for. ``node``: what it has, as Ray names it.

    Raises:
        ValueError: they need nothing, so that any number would fit.
    """
    # Ray counts resources to 1/10000; the small addition keeps 0.1 ten times in 1.
    wants = (("CPU", resources.cpus), ("GPU", resources.gpus))
    wanted = [(node.get(name, 0.0), want) for name, want in wants if want > 0]
    if not wanted:
        raise ValueError("a worker needs some CPU or GPU")
    return min(floor(have / want + 1e-6) for have, want in wanted)
