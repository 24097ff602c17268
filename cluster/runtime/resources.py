"""What a cluster holds, and how many workers of a kind fit into it."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any, Literal

log = logging.getLogger(__name__)

Gpus = Literal["auto"] | float
"""GPUs of a worker; auto: 1 where there are any, else none."""

Node = Mapping[str, Any]
"""As ``ray.nodes`` describes one."""

NODE_LABEL = "ray.io/node-id"
"""Ray gives it to every node."""

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Ray gives it to every node whose GPUs it knows: ``A100``, ``L4``."""


@dataclass(frozen=True)
class Resources:
    """What one worker needs; fractions are allowed. ``accelerator``: the only type of GPUs to take, where given."""

    cpus: float = 1.0
    gpus: float = 0.0
    accelerator: str = ""

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}" + (f" of {self.accelerator}" if self.accelerator else "")

    def more(self, cpus: float) -> "Resources":
        """With so many CPUs more."""
        return replace(self, cpus=self.cpus + cpus)

    def times(self, processes: int) -> "Resources":
        """Of so many processes together."""
        return replace(self, cpus=processes * self.cpus, gpus=processes * self.gpus)

    @property
    def device(self) -> str:
        """As torch names it."""
        return "cuda" if self.gpus else "cpu"

    def ray_options(self) -> dict[str, Any]:
        """For ``.options()`` of tasks and actors."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "label_selector": self.selector()}

    def selector(self) -> dict[str, str]:
        """Labels of the nodes to take."""
        return {ACCELERATOR_LABEL: self.accelerator} if self.accelerator else {}

    def bundle(self) -> dict[str, float]:
        """As Ray names them."""
        return {name: amount for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}


def nodes() -> list[Node]:
    """Of the connected cluster, those that are alive."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def settled(cpus: float, gpus: Gpus, accelerator: str, there: Iterable[Node]) -> Resources:
    """What a worker takes of a cluster that holds these nodes."""
    if gpus == "auto":
        gpus = 1.0 if accelerator or _gpus(there) else 0.0
    return Resources(cpus, gpus, accelerator)


def warn_of_unused(resources: Resources, there: Iterable[Node]) -> None:
    """GPUs that a job leaves unused are logged."""
    if (found := _gpus(there)) and not resources.gpus:
        log.warning("the cluster has GPUs (%g), and this job computes on CPUs: --gpus-per-worker 1 uses them", found)


def _gpus(there: Iterable[Node]) -> float:
    return sum(node["Resources"].get("GPU", 0.0) for node in there)


def capacity(resources: Resources, there: Iterable[Node]) -> int:
    """How many workers of this kind these nodes can run at the same time, counted node by node.

    It counts what the nodes have, not what is free of other jobs.

    Raises:
        ValueError: it needs nothing, so that any number would fit.
    """
    return sum(fitting(resources, node["Resources"]) for node in there if suits(resources, node))


def suits(resources: Resources, node: Node) -> bool:
    """Whether the node has the accelerator that is asked for."""
    return resources.accelerator in ("", accelerator_of(node))


def accelerator_of(node: Node) -> str:
    """Type of its GPUs; empty where Ray knows none."""
    return str((node.get("Labels") or {}).get(ACCELERATOR_LABEL, ""))


def _in_words(has: Mapping[str, float], accelerator: str) -> str:
    return f"{has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU" + (f" of {accelerator}" if accelerator else "")


def lacking(resources: Resources, there: Sequence[Node]) -> str:
    """That no worker fits on any of these nodes."""
    has = [_in_words(node["Resources"], accelerator_of(node)) for node in there]
    return f"one worker needs {resources}, which no node of the cluster has (nodes: {'; '.join(has) or 'none'})"


def fitting(resources: Resources, node: Mapping[str, float]) -> int:
    """How many workers of this kind a node has room for. ``node``: what it has, as Ray names it.

    Raises:
        ValueError: they need nothing, so that any number would fit.
    """
    # Ray counts resources to 1/10000; the small addition keeps 0.1 ten times in 1.
    wanted = [(node.get(name, 0.0), want) for name, want in resources.bundle().items() if want > 0]
    if not wanted:
        raise ValueError("a worker needs some CPU or GPU")
    return min(floor(have / want + 1e-6) for have, want in wanted)
