"""What a run cannot do without lives where its driver does: no other node's death ends it."""

import os
import subprocess
import sys

import pytest

from tests.support.jobs_run import ROOT
from tests.support.ray_nodes import running_nodes

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
