"""Which worker trains which style, and what follows when workers die."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.finetuning.style_queue import Outcome, StyleQueue


@pytest.fixture
def queue() -> StyleQueue:
    return queue_of("a", "b", "c")


def queue_of(*names: str, max_failures: int = 1) -> StyleQueue:
    return StyleQueue([cast(Any, SimpleNamespace(style_id=name)) for name in names], max_failures)


def taken(queue: StyleQueue, worker: str) -> str | None:
    task = queue.take(worker)
    return task.plan.style_id if task else None


def test_each_style_goes_to_one_worker(queue: StyleQueue) -> None:
    assert [taken(queue, worker) for worker in ("x", "y")] == ["a", "b"]
    queue.ended("x")
    queue.ended("y", "no such picture")
    assert [taken(queue, worker) for worker in ("x", "y")] == ["c", None]
    report = queue.report()
    assert report.outcomes == [Outcome("a", None), Outcome("b", "no such picture")]
    assert (report.ended_by, report.unfinished, report.training) == ({"x", "y"}, 1, 1)
    queue.ended("x")
    queue.ended("x")  # a worker that was thought to be dead
    assert queue.report().unfinished == 0
    assert queue.report().outcomes == []


def test_a_style_whose_worker_died_goes_to_the_end_and_fails_once_too_often(queue: StyleQueue) -> None:
    assert taken(queue, "x") == "a"
    assert taken(queue, "x") == "b"  # the same worker again: it was restarted
    assert queue.report().notes == ["a: its worker died; it is resumed"]
    queue.ended("x")
    assert taken(queue, "x") == "c"
    queue.ended("x")
    again = queue.take("y")
    assert again is not None
    assert (again.plan.style_id, again.again) == ("a", True)
    queue.report()
    queue.failed("y", "its worker died")
    assert queue.report().outcomes == [Outcome("a", "its worker died (2 times)")]


def test_a_style_given_back_or_lost_with_its_node_has_not_failed() -> None:
    queue = queue_of("a", max_failures=0)
    for _ in range(5):
        assert taken(queue, "x") == "a"
        queue.give_back("x")
    queue.give_back("x")
    queue.failed("x", "nothing that it had begun")
    report = queue.report()
    assert (report.unfinished, report.outcomes, report.notes) == (1, [], [])


def test_without_any_worker_the_styles_that_wait_have_failed(queue: StyleQueue) -> None:
    taken(queue, "x")
    queue.abandon("no node can run a worker")
    assert [outcome.style_id for outcome in queue.report().outcomes] == ["b", "c"]
    queue.progress("x", 3, 4, 0.5)
    queue.progress("gone", 1, 4, 0.5)
    report = queue.report()
    assert (report.unfinished, report.rows) == (1, {"a": (3, 4, 0.5)})


def test_the_processes_that_ray_train_adds_to_a_worker_load_no_torch() -> None:
    """Which load what a worker's loop and the queue's handle are made of, on the head too."""
    code = "import sys, jobs.finetuning.fleet, jobs.finetuning.style_queue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
