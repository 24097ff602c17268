"""Workers that train style after style: one Ray Train run each, bound to a node, as many as the nodes have room for.

Each node has one actor that starts the runs of its workers, each in a thread. So a node that goes takes with it what
belongs to it and nothing else, a worker that dies is started again by Ray Train without the others noticing, and a node
that comes gets workers as soon as it is seen. Nothing here is per style.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # TorchTrainer would bring torch everywhere
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.runtime.resources import NODE_LABEL, Resources, fitting
from jobs.finetuning.admission import Usage, room, share

_STRIKES = 3
"""Workers that ended by an error, without a style having ended on their node; then it gets no more."""
_DOUBT_S = 60.0
"""For so long a node whose actor cannot be reached may have gone: Ray takes up to a minute to find out."""
_END_S = 20.0


@ray.remote(num_cpus=0, max_restarts=0)
class NodeActor:
    """Runs workers on its node. It holds no CPU: it would keep one from them."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

    def run(
        self, name: str, loop_config: dict[str, Any], resources: Resources, processes: int, max_failures: int
    ) -> None:
        """One worker of so many processes, until no style waits; ``resources`` are of all of them together.

        Raises:
            TrainingFailedError: it died once too often.
        """
        per_process = {"CPU": resources.cpus / processes}
        per_process |= {"GPU": resources.gpus / processes} if resources.gpus else {}
        node = ray.get_runtime_context().get_node_id()
        # States are stored by the styles' own names; what Ray Train itself writes is of no use afterwards.
        with tempfile.TemporaryDirectory(prefix="osasis-train-") as folder:
            DataParallelTrainer(
                _train_styles,
                train_loop_config=loop_config | {"name": name, "folder": folder},
                scaling_config=ScalingConfig(
                    num_workers=processes,
                    use_gpu=resources.gpus > 0,
                    resources_per_worker=per_process,
                    label_selector={NODE_LABEL: node},
                ),
                run_config=RunConfig(
                    name=name, storage_path=folder, failure_config=FailureConfig(max_failures=max_failures)
                ),
            ).fit()


def _train_styles(config: dict[str, Any]) -> None:
    from jobs.finetuning.worker import train_styles  # torch is for workers, not for the processes that watch them

    train_styles(config)


@dataclass(frozen=True)
class _Worker:
    name: str
    node: str
    actor: Any


@dataclass(frozen=True)
class _Loss:
    """A worker that ended by an error."""

    worker: _Worker
    error: Exception
    since: float

    @property
    def is_clear(self) -> bool:
        """Whether its node, if it seems to live, does."""
        unreachable = isinstance(self.error, ray.exceptions.ActorUnavailableError)
        return not unreachable or time.monotonic() - self.since > _DOUBT_S


class Fleet:
    """All workers of a run.

    Args:
        queue: a handle of the :data:`~jobs.finetuning.style_queue.QueueActor`.
        settings: :class:`~jobs.finetuning.worker.WorkerSettings`.
        resources: of a worker, with all its processes.
        processes: how many train a style together, on one node.
        max_failures: how often Ray Train starts a worker again.
    """

    def __init__(self, queue: Any, settings: Any, resources: Resources, processes: int, max_failures: int) -> None:
        self._queue = queue
        self._config = {"queue": queue, "settings": ray.put(settings)}
        self._resources, self._processes = resources, processes
        self._max_failures = max_failures
        self._numbers = count()
        self._actors: dict[str, Any] = {}
        self._workers: dict[Any, _Worker] = {}
        self._losses: list[_Loss] = []
        self._strikes: Counter[str] = Counter()
        self._usages: dict[str, Usage] = {}
        self._error = ""

    def tend(self, wanted: int) -> None:
        """Look after workers that ended, and start new ones where there is room, until there are ``wanted``."""
        running = list(self._workers)
        ended, _ = ray.wait(running, num_returns=len(running), timeout=0) if running else ([], [])
        # Asked afterwards: an actor is known to be dead after its node is.
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        nodes = {node: has for node, has in nodes.items() if fitting(self._resources, has)}
        self._look_after(ended, nodes)
        leaving = {*ray._private.state.state.get_draining_nodes()}  # as Ray Train's own watcher asks
        leaving |= {loss.worker.node for loss in self._losses}
        usable = [node for node in nodes if self._strikes[node] < _STRIKES and node not in leaving]
        while len(self._workers) + len(self._losses) < wanted:
            there = Counter(worker.node for worker in self._workers.values())
            free = {n: room(self._resources, nodes[n], self._usage(n)) - there[n] for n in usable}
            freest = max(free, key=lambda node: free[node], default=None)
            if freest is None or free[freest] <= 0:
                break
            self._start(freest, fitting(self._resources, nodes[freest]))
        if not self._workers and nodes and all(self._strikes[node] >= _STRIKES for node in nodes):
            ray.get(self._queue.abandon.remote(f"no node can run a worker: {self._error}"))

    def heard(self, well: Container[str], usages: Mapping[str, Usage]) -> None:
        """``well``: workers that brought a style to its end; ``usages``: memory that workers have taken."""
        for worker in self._workers.values():
            if worker.name in well:
                self._strikes[worker.node] = 0
            if usage := usages.get(worker.name):
                self._usages[worker.node] = usage.or_more(self._usages.get(worker.node, usage))

    @property
    def usage(self) -> Usage | None:
        """The most that a worker has taken, on any node."""
        return reduce(Usage.or_more, self._usages.values()) if self._usages else None

    def close(self) -> None:
        """Wait until the workers, which have no style left, have ended; they are stopped if that takes long."""
        if self._workers:
            ray.wait(list(self._workers), num_returns=len(self._workers), timeout=_END_S)

    def _usage(self, node: str) -> Usage | None:
        """On this node, or, of workers without GPUs, on any."""
        return self._usages.get(node) or (None if self._resources.gpus else self.usage)

    def _start(self, node: str, most: int) -> None:
        if node not in self._actors:
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            self._actors[node] = NodeActor.options(scheduling_strategy=here, max_concurrency=most).remote()  # type: ignore[attr-defined]
        worker = _Worker(f"worker-{next(self._numbers)}", node, self._actors[node])
        resources = share(self._resources, self._usage(node))
        reference = worker.actor.run.remote(worker.name, self._config, resources, self._processes, self._max_failures)
        self._workers[reference] = worker

    def _look_after(self, ended: Iterable[Any], nodes: Container[str]) -> None:
        for reference in ended:
            worker = self._workers.pop(reference)
            try:
                ray.get(reference)
            except (TrainingFailedError, ray.exceptions.RayError) as error:
                self._losses.append(_Loss(worker, error, time.monotonic()))
        known = [loss for loss in self._losses if loss.is_clear or loss.worker.node not in nodes]
        self._losses = [loss for loss in self._losses if loss not in known]
        for loss in known:
            self._judge(loss.worker, loss.error, nodes)

    def _judge(self, worker: _Worker, error: Exception, nodes: Container[str]) -> None:
        """A worker's death is its style's failure, unless its node died."""
        actor_died = isinstance(error, ray.exceptions.RayActorError)
        first_of_actor = self._actors.get(worker.node) is worker.actor
        if actor_died and first_of_actor:
            del self._actors[worker.node]
        if worker.node not in nodes:
            ray.get(self._queue.give_back.remote(worker.name))
            return
        if first_of_actor or not actor_died:  # all workers of an actor end with it: one strike
            self._strikes[worker.node] += 1
        self._error = (str(error).strip() or repr(error)).splitlines()[-1]
        if actor_died:
            ray.kill(worker.actor)  # should it live after all
        ray.get(self._queue.failed.remote(worker.name, "its worker died"))
