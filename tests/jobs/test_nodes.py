"""Jobs on nodes that come and go."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
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


_PICTURES = 200
_WORKER = "MapBatches(Stylizer"
"""How Ray titles a process that stylizes."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_a_head_without_cpus_a_submitted_job_waits_uses_nodes_that_come_and_lives_without_one_that_goes(
    tmp_path: Path,
) -> None:
    case = Case.make(Storage.open(tmp_path), tmp_path, styles=1)
    case.add_pictures(_PICTURES)
    with running_head(cpus=0) as head:
        command = case.argv(workers="auto", batch_size=4, encode_steps=100, decode_steps=50)  # computing takes long
        command[0] = "jobs/stylize.py"
        job = Job("stylize", command, head.env, tmp_path / "log", head.dashboard)
        try:
            until(job, lambda: "waiting for it, up to 15 min" in job.output())
            first = head.join(cpus=1)
            until(job, lambda: head.has_process(first, _WORKER))
            second = head.join(cpus=4)
            until(job, lambda: head.has_process(second, _WORKER))
            until(job, lambda: len(case.root.list_files("out/images")) > 0)
            head.kill(first)
            assert job.process.wait(500) == 0, job.output()
        finally:
            job.stop()
    assert case.check_consistent(killed=True) == {"done": _PICTURES}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_training_uses_a_node_that_joins_and_lives_without_one_that_goes(tmp_path: Path) -> None:
    ids = [f"style-{i}" for i in range(4)]
    (tmp_path / "art.png").write_bytes(encoded(picture(), "PNG"))
    file, base = tmp_path / "styles.yaml", make_tiny_base(tmp_path / "base")
    train = {"iterations": 200, "style_photo": {"steps": 10, "candidates": 1}}
    styles = [{"id": name, "image": str(tmp_path / "art.png")} for name in ids]
    file.write_text(yaml.safe_dump({"base": str(base), "storage": str(tmp_path), "train": train, "styles": styles}))
    with running_head(cpus=0) as head:
        command = ["jobs/train_styles.py", "--config", str(file), "--checkpoint-seconds", "0"]
        job = Job("train", command, head.env, tmp_path / "log")
        try:
            until(job, lambda: "waiting for it, up to 15 min" in job.output())
            first = head.join(cpus=1)
            until(job, lambda: head.has_process(first, "RayTrainWorker"))
            second = head.join(cpus=1)
            until(job, lambda: head.has_process(second, "RayTrainWorker"))
            until(job, lambda: any((tmp_path / "train").rglob("*.pt")))
            head.kill(first)
            assert job.process.wait(500) == 0, job.output()
        finally:
            job.stop()
    rows = StyleCatalog.open(Storage.open(tmp_path)).list()
    assert [str(row) for row in rows] == [f"{name}@1" for name in ids]


def until(job: Job, condition: Callable[[], bool], timeout: float = 400) -> None:
    """Polls; the job must not end before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert job.runs(), f"the job ended too early:\n{job.output()}"
        assert time.monotonic() < deadline, f"it never came:\n{job.output()}"
        time.sleep(0.1)  # the interval of polling, not a wait for an effect
