"""The stylize job killed at any moment, and run again: nothing missing, nothing twice, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.runtime.connection import ClusterError
from cluster.storage import Storage
from jobs.streaming.stylizing import Stylizer
from tests.support.in_process import InProcess
from tests.support.jobs_run import ROOT, kill_job_when, run_job
from tests.support.stylize_case import Case

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not import tests

PICTURES = 16


@pytest.fixture
def case(tmp_path: Path) -> Case:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path)
    case.add_pictures(PICTURES)
    return case


def test_driver_killed_in_the_middle(tmp_path: Path) -> None:
    case, pictures = Case.make(Storage.open(tmp_path / "root"), tmp_path), 12
    case.add_pictures(pictures)
    flags = case.argv(encode_steps=100, decode_steps=50, batch_size=1, workers=2)[1:]
    images = Path(case.root.uri) / "out" / "images"
    kill_job_when("stylize", *flags, condition=lambda: len(list(images.glob("*/*.png"))) >= 3)
    finished = len(list(images.glob("*/*.png")))
    assert finished < 2 * pictures
    assert len(case.rows()) <= finished, "a row without its picture"
    for path in images.glob("*/*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), "a half-written picture"
    run_job("stylize", *flags)
    assert case.check_consistent(killed=True) == {"done": 2 * pictures}


KILLED_AFTER_ITS_THIRD_SHARD = """
import json, os, signal, sys
from pathlib import Path
from cluster.storage import Storage
from jobs.streaming import recording
from jobs.streaming.packing import Pack
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case

write, written = Pack.write, []

def killed(self, label, outcomes):
    found = write(self, label, outcomes)
    written.append(label)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

Pack.write, recording.COMMIT_ROWS = killed, 1
root, base, flags = json.loads(sys.argv[1])
Case(Storage.open(root), Path(base), flags).run(execute=InProcess.connected)
"""


def test_a_process_killed_while_packing_and_keeping_codes(tmp_path: Path) -> None:
    case, pictures = Case.make(Storage.open(tmp_path / "root"), tmp_path), 12
    case.add_pictures(pictures)
    kept, packed = tmp_path / "kept", Path(case.root.uri) / "out" / "packed"
    case.flags |= {"pack": "webdataset", "keep_structure": str(kept)}
    told = json.dumps([case.root.uri, str(case.base), case.flags])
    child = subprocess.run([sys.executable, "-c", KILLED_AFTER_ITS_THIRD_SHARD, told], cwd=ROOT, check=False)
    assert child.returncode == -signal.SIGKILL
    before = case.rows()
    assert len(before) == pictures, "the rows of two shards of four"
    assert len(list(packed.glob("*/*/*.tar"))) == 3, "one of them without rows"
    codes = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    case.run(execute=InProcess.connected)
    assert case.check_consistent(killed=True) == {"done": 2 * pictures}
    assert {row["output_uri"] for row in before} < {row["output_uri"] for row in case.rows()}, "what is recorded stays"
    assert not list(packed.glob("unfinished/*"))
    now = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    assert len(now) == pictures
    assert codes.items() <= now.items(), "codes that were kept are not written again"


class DiesOnce(Stylizer):
    """Kills its own process in the middle of the first batch that holds a certain picture, after writing one."""

    def keep(self, variant: Any, row: dict[str, Any], result: Any) -> dict[str, Any]:
        kept = super().keep(variant, row, result)
        flag = Path(self.task.write.output.path).parent / "died"
        if row["key"].startswith("00013") and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return kept


@pytest.mark.usefixtures("ray_cluster")
def test_actor_killed_in_the_middle_of_a_batch(case: Case) -> None:
    tally = case.run(worker=DiesOnce)
    assert (Path(case.root.path) / "died").exists()
    assert tally.counts()["done"] == 2 * PICTURES
    assert case.check_consistent(killed=True) == {"done": 2 * PICTURES}


class DiesPacking(Stylizer):
    """Kills its own process when it has stored a shard of the last style, before it can tell."""

    def bundle(self) -> Any:
        bundle, died = super().bundle(), Path(self.task.write.output.path).parent / "died"

        def write(label: str, outcomes: Any) -> list[dict[str, Any]]:
            placed = self.task.pack.write(label, outcomes)
            if label.startswith("style-1") and not died.exists():
                kept = Path(self.task.keep.place.path).rglob("*.safetensors")
                died.write_text(json.dumps({str(path): path.stat().st_mtime_ns for path in kept}))
                os.kill(os.getpid(), signal.SIGKILL)
            return placed

        bundle._pack = SimpleNamespace(write=write)
        return bundle


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_killed_while_packing_and_keeping_codes(case: Case, tmp_path: Path) -> None:
    kept, root = tmp_path / "kept", Path(case.root.path)
    tally = case.run(worker=DiesPacking, pack="webdataset", keep_structure=str(kept))
    assert tally.now == {"done": 2 * PICTURES}
    assert case.check_consistent(killed=True) == {"done": 2 * PICTURES}
    assert not list((root / "out" / "packed").glob("unfinished/*"))
    before, after = json.loads((root / "died").read_text()), list(kept.rglob("*.safetensors"))
    assert before
    assert len(after) == PICTURES
    assert before.items() <= {str(path): path.stat().st_mtime_ns for path in after}.items(), (
        "kept codes are not rewritten"
    )


class DiesOf(Stylizer):
    """Dies of one picture, whenever it meets it."""

    def results(self, variant: Any, batch: Any) -> Any:
        if any(row["key"].startswith("00007") for row in batch.rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().results(variant, batch)


@pytest.mark.usefixtures("ray_cluster")
def test_a_deadly_input_is_one_failed_row(case: Case) -> None:
    tally = case.run(worker=DiesOf)
    assert tally.counts()["done"] == 2 * (PICTURES - 1)
    assert case.check_consistent(killed=True) == {"done": 2 * (PICTURES - 1), "failed": 2}
    assert {row["error_type"] for row in case.rows() if row["status"] == "failed"} == {"worker-died"}


class SickOnce(Stylizer):
    """Its device fails once, after some batches."""

    def results(self, variant: Any, batch: Any) -> Any:
        flag = Path(self.task.write.output.path).parent / "sick"
        if any(row["key"].startswith("00013") for row in batch.rows) and not flag.exists():
            flag.touch()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().results(variant, batch)


@pytest.mark.usefixtures("ray_cluster")
def test_a_sick_device_costs_no_input(case: Case) -> None:
    tally = case.run(worker=SickOnce)
    assert (Path(case.root.path) / "sick").exists()
    assert tally.now == {"done": 2 * PICTURES}
    assert case.check_consistent(killed=True) == {"done": 2 * PICTURES}


class Sick(Stylizer):
    """Its device fails always."""

    def results(self, variant: Any, batch: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_of_sick_devices_stops_the_run(case: Case) -> None:
    with pytest.raises(ClusterError, match="devices of every node"):
        case.run(worker=Sick, workers=1)
    assert case.rows() == []
