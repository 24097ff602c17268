"""Jobs on nodes that come and go."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.faults_parts.job import Job
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.hostile import encoded, picture
from tests.support.jobs_run import ROOT
from tests.support.ray_head import running_head
from tests.support.ray_nodes import running_nodes
from tests.support.stylize_case import Case
from tests.support.tiny import make_tiny_base

_WHERE = """
import ray
from cluster.runtime.connection import connect
from cluster.runtime.resources import Resources
from jobs.streaming.execution import Execution

def where(self):
    return ray.get_runtime_context().get_node_id()

with connect():
    executions = [Execution(None, None, None, Resources(), 1) for _ in range(4)]
    found = [ray.get(execution._coordinator.__ray_call__.remote(where)) for execution in executions]
    assert {*found} == {ray.get_runtime_context().get_node_id()}, found
"""


@pytest.mark.slow
def test_the_coordinator_of_a_run_is_beside_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with running_nodes(3) as nodes:
        env = os.environ | {"RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", _WHERE], cwd=ROOT, env=env, timeout=200, check=True)


@dataclass
class Given:
    """A command, and what is to be seen of it."""

    command: list[str]
    title: str
    """Of its workers' processes, as Ray names them."""
    begun: Callable[[], bool]
    """Whether something is kept of what it does."""
    check: Callable[[], None]
    """That all is done, once."""


def stylizing(folder: Path) -> Given:
    pictures = 800
    case = Case.make(Storage.open(folder), folder, styles=1)
    case.add_pictures(pictures)

    def check() -> None:
        assert case.check_consistent(killed=True) == {"done": pictures}

    command = ["jobs/stylize.py", *case.argv(workers="auto", batch_size=4)[1:]]
    return Given(command, "MapBatches(Stylizer", lambda: len(case.root.list_files("out/images")) > 0, check)


def training(folder: Path) -> Given:
    ids = [f"style-{i}" for i in range(3)]
    (folder / "art.png").write_bytes(encoded(picture(), "PNG"))
    file, base = folder / "styles.yaml", make_tiny_base(folder / "base")
    train = {"iterations": 120, "style_photo": {"steps": 10, "candidates": 1}}
    styles = [{"id": name, "image": str(folder / "art.png")} for name in ids]
    file.write_text(yaml.safe_dump({"base": str(base), "storage": str(folder), "train": train, "styles": styles}))

    def check() -> None:
        rows = StyleCatalog.open(Storage.open(folder)).list()
        assert [str(row) for row in rows] == [f"{name}@1" for name in ids]

    command = ["jobs/train_styles.py", "--config", str(file), "--checkpoint-seconds", "0"]
    return Given(command, "RayTrainWorker", lambda: any((folder / "train").rglob("*.pt")), check)


@pytest.mark.slow
@pytest.mark.parametrize("submitted", [False, True], ids=["by address", "submitted"])
@pytest.mark.parametrize("given", [stylizing, training])
def test_from_a_head_without_cpus_a_job_waits_uses_nodes_that_come_and_lives_without_one_that_goes(
    tmp_path: Path, given: Callable[[Path], Given], submitted: bool
) -> None:
    job = given(tmp_path)
    with running_head(cpus=0) as head:
        process = Job("job", job.command, head.env, tmp_path / "log", head.dashboard if submitted else None)
        try:
            until(process, lambda: "waiting for it, up to 15 min" in process.output())
            first = head.join(cpus=1)
            until(process, lambda: head.has_process(first, job.title))
            second = head.join(cpus=1)
            until(process, lambda: head.has_process(second, job.title))
            until(process, job.begun)
            head.kill(first)
            assert process.process.wait(240) == 0, process.output()
        finally:
            process.stop()
    job.check()


def until(job: Job, condition: Callable[[], bool], timeout: float = 200) -> None:
    """Polls; the job must not end before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert job.runs(), f"the job ended too early:\n{job.output()}"
        assert time.monotonic() < deadline, f"it never came:\n{job.output()}"
        time.sleep(0.1)  # the interval of polling, not a wait for an effect
