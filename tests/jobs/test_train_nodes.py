"""A training job's loop where nodes go: the cluster is a stand-in, so that each moment is chosen."""

from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.runtime import elastic
from cluster.runtime.connection import ClusterInfo
from cluster.runtime.elastic import NoNodeLeft
from cluster.runtime.resources import Node, Resources
from cluster.runtime.target import Target
from jobs import train_styles

HEAD: Node = {"Resources": {"memory": 1e9}}
NODE: Node = {"Resources": {"CPU": 1.0}}


class Stage:
    """A job of three styles, which end one at each look; ``nodes`` of each look, and the workers asked for then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nodes: list[list[Node]]) -> None:
        self.left, self.nodes, self.asked = 3, iter(nodes), list[int]()
        handle = SimpleNamespace(report=SimpleNamespace(remote=self._report))
        fleet = SimpleNamespace(tend=lambda _: None, heard=lambda *_: None, close=lambda: None, usage=None)
        here = SimpleNamespace(get_node_id=lambda: "ab" * 28)
        asked = SimpleNamespace(keep=lambda _, count: self.asked.append(count))
        for name, stand_in in {
            "connect": lambda **_: nullcontext(ClusterInfo("head:6379", False, 1, 0, 2)),
            "room_for": lambda *_: Resources(1.0),
            "nodes": lambda: [HEAD, NODE],
            "asking": lambda: nullcontext(asked),
            "ray": SimpleNamespace(get=lambda value: value, get_runtime_context=lambda: here),
            "QueueActor": SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: handle)),
            "Fleet": lambda *_: fleet,
            "_TICK_S": 0,
        }.items():
            monkeypatch.setattr(train_styles, name, stand_in)
        monkeypatch.setattr(elastic, "_LOOK_EVERY_S", 0)
        monkeypatch.setattr(elastic, "nodes", lambda: next(self.nodes))

    def _report(self) -> Any:
        self.left -= 1
        return SimpleNamespace(unfinished=self.left, ended_by=(), usages={}, rows={}, training=0, notes=[], outcomes=[])

    def run(self, workers: Target, wait: timedelta) -> None:
        style = SimpleNamespace(style_id="a", config=SimpleNamespace(iterations=1))
        flags = SimpleNamespace(
            workers=workers, wait=wait, resources=None, check_memory=lambda _: None, checkpoint_seconds=1,
            cpus_per_worker=1, if_busy="wait", memory=None, processes_per_style=1, max_failures=0,
        )  # fmt: skip
        plan = SimpleNamespace(base_location="base", storage=None)
        record = SimpleNamespace(run_id="run", metrics={}, timed=lambda _: nullcontext())
        train_styles._train([style] * 3, plan, flags, None, record)  # type: ignore[list-item,arg-type]


def test_workers_that_went_are_asked_for_as_long_as_there_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [[HEAD, NODE], [HEAD, NODE], [HEAD], [HEAD]])
    stage.run(Target(2, 4), timedelta(minutes=1))
    assert stage.asked == [1, 2, 1]  # one is there; none is; there is work for one


def test_without_a_node_a_training_ends_once_it_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [[HEAD, NODE], [HEAD]])
    with pytest.raises(NoNodeLeft, match="no worker is left: one worker needs 1 CPU"):
        stage.run(Target(), timedelta(0))
    assert stage.left == 3
