"""What follows when a worker of a training job ends by an error; Ray is a stand-in, so that each moment is chosen."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from cluster.runtime.resources import Resources
from jobs.finetuning import fleet
from jobs.finetuning.fleet import Fleet
from jobs.finetuning.style_queue import StyleQueue

UNREACHABLE = ray.exceptions.ActorUnavailableError("socket closed", None)
DEAD = ray.exceptions.ActorDiedError()


class Run:
    """A worker's reference."""

    error: Exception | None = None


class Stage:
    """A fleet of one worker, which has the style "a"; ``alive``: the node, as Ray knows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive, self.now, self.killed = True, 0.0, list[Any]()
        self.queue = StyleQueue([cast(Any, SimpleNamespace(style_id="a"))], max_failures=0)
        self.run = Run()
        runs = SimpleNamespace(run=SimpleNamespace(remote=lambda *_: self.run))
        made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: runs))
        monkeypatch.setattr(fleet, "NodeActor", made)
        monkeypatch.setattr(fleet.time, "monotonic", lambda: self.now)
        drained = SimpleNamespace(state=SimpleNamespace(state=SimpleNamespace(get_draining_nodes=dict)))
        node = {"NodeID": "ab" * 28, "Resources": {"CPU": 1.0, "memory": 2**33}}
        fake = SimpleNamespace(
            put=lambda value: value, get=self._get, kill=self.killed.append, exceptions=ray.exceptions,
            wait=lambda running, **_: ([run for run in running if run.error], []), _private=drained,
            nodes=lambda: [node | {"Alive": self.alive}],
        )  # fmt: skip
        monkeypatch.setattr(fleet, "ray", fake)
        handle = {name: SimpleNamespace(remote=getattr(self.queue, name)) for name in ("failed", "give_back", "note")}
        self.fleet = Fleet(SimpleNamespace(**handle), None, Resources(), processes=1, max_failures=0)
        self.fleet.tend(1)
        assert self.queue.take("worker-0") is not None

    def _get(self, value: Any) -> Any:
        if error := getattr(value, "error", None):
            raise error
        return value

    def ends_by(self, error: Exception) -> None:
        self.run.error = error
        self.fleet.tend(1)
        self.run = Run()

    def state(self) -> tuple[int, int]:
        """Styles that wait, and styles that have failed."""
        report = self.queue.report()
        return report.unfinished - report.training, len(report.outcomes)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_a_style_whose_node_is_found_dead_later_has_not_failed(stage: Stage) -> None:
    stage.ends_by(UNREACHABLE)
    assert stage.state() == (0, 0), "nobody knows yet"
    stage.alive = False
    stage.fleet.tend(1)
    assert stage.state() == (1, 0)


def test_one_that_is_not_reached_on_a_node_that_lives_has(stage: Stage) -> None:
    stage.ends_by(UNREACHABLE)
    stage.now = 61.0
    stage.fleet.tend(1)
    assert stage.state() == (0, 1)
    assert len(stage.killed) == 1, "it may live"


@pytest.mark.parametrize(("alive", "expected"), [(True, (0, 1)), (False, (1, 0))])
def test_a_death_is_the_styles_failure_unless_the_node_died(
    stage: Stage, alive: bool, expected: tuple[int, int]
) -> None:
    stage.alive = alive
    stage.ends_by(DEAD)
    assert stage.state() == expected
