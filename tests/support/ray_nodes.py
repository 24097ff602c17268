"""A cluster of several nodes on this machine, whose nodes can be killed and added: a head without CPUs, and workers."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil

_QUICK_DEATH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}
_STORE = 80 << 20


class Nodes:
    """The head, which is never killed since Ray has one alone, and ``workers`` in the order of their coming."""

    def __init__(self, cpus: int, dashboard: bool = False) -> None:
        """``cpus`` of each worker."""
        from ray._common.utils import reset_ray_address  # Ray reads the token as it is imported
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        self._numbers = count()
        # A folder each, as on machines of their own: Ray unpacks code into it, and a node that goes clears up.
        self._folder = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))  # short: Unix sockets lie below
        head = {"num_cpus": 0, "object_store_memory": _STORE, "_system_config": _QUICK_DEATH}
        self.cluster = Cluster(
            initialize_head=True, head_node_args=head | {"include_dashboard": dashboard} | self._own_folder()
        )
        reset_ray_address()  # no ray.init() of this machine's finds this cluster by itself
        self.workers: list[Any] = []

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        """Another worker, which is there when this returns."""
        options = {"num_cpus": self._cpus, "object_store_memory": _STORE}
        self.workers.append(self.cluster.add_node(**options, **self._own_folder()))

    def kill(self, node: Any) -> None:
        """As a machine goes: all its processes at once, none of them told."""
        family = _family(node)
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        _kill(family)

    def processes(self, title: str, *, head: bool = False) -> list[psutil.Process]:
        """Of the workers (or of the head) alone, whose command lines contain ``title``; by pid."""
        found = []
        for node in [self.cluster.head_node] if head else self.workers:
            for process in _family(node):
                with suppress(psutil.Error):
                    if title in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def close(self) -> None:
        family = [process for node in self.cluster.list_all_nodes() for process in _family(node)]
        self.cluster.shutdown()
        _kill(family)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _own_folder(self) -> dict[str, str]:
        return {"temp_dir": str(self._folder / str(next(self._numbers)))}


@contextmanager
def running_nodes(count: int, cpus: int = 1, *, dashboard: bool = False) -> Iterator[Nodes]:
    """A head and ``count`` workers; gone at the end."""
    nodes = Nodes(cpus, dashboard)
    try:
        for _ in range(count):
            nodes.add()
        yield nodes
    finally:
        nodes.close()


def _family(node: Any) -> list[psutil.Process]:
    found = []
    for info in node.all_processes.get("raylet", []):
        with suppress(psutil.Error):
            raylet = psutil.Process(info.process.pid)
            found += [raylet, *raylet.children(recursive=True)]
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):  # psutil looks at the start time too: a pid that is used again is another's
            process.kill()
