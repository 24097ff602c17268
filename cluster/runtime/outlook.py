"""What a job will run on, for its plan."""

import os
from collections.abc import Sequence

from cluster.runtime.connection import SUBMITTED_JOB, ClusterError, connect
from cluster.runtime.resources import ACCELERATOR_LABEL, Node, Resources, accelerator_of, capacity, nodes, suits
from cluster.runtime.target import Target, WorkersWanted


def outlook(resources: Resources, target: Target, there: Sequence[Node]) -> str:
    """As: 4 workers of 8 on cuda (A100), 1 CPU and 1 GPU each."""
    room = capacity(resources, there)
    kinds = {accelerator_of(node) for node in there if resources.gpus and suits(resources, node)} - {""}
    device = resources.device + (f" ({', '.join(sorted(kinds))})" if kinds else "")
    wanted = f" of {target}" if target.most and target.most > room else ""
    return f"{target.of(room)} workers{wanted} on {device}, {resources} each"


def foreseen(wanted: WorkersWanted, beside: float = 0.0) -> tuple[Resources, str]:
    """What each worker would take, and the outlook, of the cluster that would be joined, or of this machine.

    Nothing is started for it. ``beside``: CPUs set aside for each worker.
    """
    try:
        there = _nodes()
    except ClusterError as error:
        return wanted.resources([]), f"{wanted.workers}; {error}"
    resources = wanted.resources(there)
    return resources, outlook(resources.more(beside), wanted.workers, there)


def _nodes() -> list[Node]:
    import ray

    named = os.environ.get("RAY_ADDRESS", "local") != "local"
    if named or SUBMITTED_JOB in os.environ or ray.is_initialized():
        with connect(look_only=True):
            return nodes()
    return [_this_machine()]


def _this_machine() -> Node:
    """As Ray will find it."""
    from ray._private.accelerators import get_accelerator_manager_for_resource
    from ray._private.utils import get_num_cpus

    gpus = get_accelerator_manager_for_resource("GPU")
    count = gpus.get_current_node_num_accelerators() if gpus else 0
    kind = gpus.get_current_node_accelerator_type() if gpus and count else None
    resources = {"CPU": float(get_num_cpus()), "GPU": float(count)}
    return {"Resources": resources, "Labels": {ACCELERATOR_LABEL: kind} if kind else {}}
