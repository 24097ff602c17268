"""The failure policy: pure decisions, and a worker that follows them."""

import gc
import weakref
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from cluster.storage import Storage, StorageError
from jobs.streaming.encoding import Batch
from jobs.streaming.failures import (
    DEATHS,
    DEATHS_LOADING,
    FAILURES,
    LEAVES,
    Action,
    Attempts,
    Fault,
    NodeAvoided,
    RunStopped,
    Streaks,
    action,
    fault_of,
    together,
)
from jobs.streaming.ledger import LocalLedger
from jobs.streaming.rows import Row
from jobs.streaming.stylizing import Stylizer
from jobs.streaming.variants import Variant
from tests.support.in_process import without_cluster
from tests.support.stylize_case import Case


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (RuntimeError("shapes do not match"), Fault.INPUT),
        (torch.OutOfMemoryError("CUDA out of memory"), Fault.MEMORY),
        (MemoryError(), Fault.MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Fault.MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.DEVICE),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"), Fault.DEVICE),
        (StorageError("503"), Fault.STORAGE),
    ],
)
def test_whose_fault_an_error_is(error: Exception, fault: Fault) -> None:
    assert fault_of(error) == fault


def test_what_an_error_leads_to() -> None:
    found = {fault: (action(fault, 8), action(fault, 1)) for fault in Fault}
    assert found == {
        Fault.INPUT: (Action.SPLIT, Action.FAIL),
        Fault.MEMORY: (Action.SHRINK, Action.LEAVE),
        Fault.DEVICE: (Action.LEAVE, Action.LEAVE),
        Fault.STORAGE: (Action.STOP, Action.STOP),
    }


def test_deaths_over_a_chunk_are_counted_until_it_ends() -> None:
    attempts = Attempts()
    assert [attempts.begin("work/0", "n", ["n"]) for _ in range(4)] == [0, 1, 2, 3]
    assert [together(deaths) for deaths in range(4)] == [True, True, False, False]
    attempts.end("work/0")
    assert attempts.begin("work/0", "n", ["n"]) == 0


def test_the_death_of_a_node_blames_nobody() -> None:
    attempts = Attempts()
    attempts.begin("work/0", "lost", ["lost", "n"])
    assert attempts.begin("work/0", "n", ["n"]) == 0
    assert attempts.begin("work/0", "n", ["n"]) == 1


def test_a_guilty_input_stays_guilty_until_its_chunk_ends() -> None:
    attempts = Attempts()
    attempts.begin("work/0/3", "n", ["n"])
    assert attempts.begin("work/0/3", "n", ["n"]) == 1
    assert attempts.begin("work/0/3", "n", ["n"]) == 2
    attempts.end("work/0")
    assert attempts.begin("work/0/3", "n", ["n"]) == 0


def test_the_run_stops_where_workers_die_whatever_they_do() -> None:
    attempts = Attempts(workers=2)
    for i in range(DEATHS + 4):
        attempts.begin(f"work/{i}", "n", ["n"])
        attempts.begin(f"work/{i}", "n", ["n"])
    attempts.begin("work/x", "n", ["n"])
    with pytest.raises(RunStopped, match="processes died"):
        attempts.begin("work/x", "n", ["n"])


def test_something_finished_makes_up_for_deaths() -> None:
    attempts = Attempts()
    for i in range(3 * DEATHS):
        attempts.begin(f"work/{i}", "n", ["n"])
        attempts.begin(f"work/{i}", "n", ["n"])
        attempts.end(f"work/{i}")


def test_the_run_stops_where_a_worker_dies_loading() -> None:
    attempts = Attempts()
    for _ in range(DEATHS_LOADING):
        attempts.begin_loading("w", "n", ["n"])
    with pytest.raises(RunStopped, match="while it loaded"):
        attempts.begin_loading("w", "n", ["n"])


def test_workers_that_have_loaded_are_counted_where_their_nodes_live() -> None:
    attempts = Attempts(3)
    for worker, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
        attempts.begin_loading(worker, node, ["n1", "n2"])
        attempts.end_loading(worker, node)
    assert (attempts.ready(["n1", "n2"]), attempts.ready(["n1"]), attempts.ready([])) == (3, 2, 0)
    attempts.begin_loading("a", "n1", ["n1"])  # its process died, and starts anew
    assert attempts.ready(["n1", "n2"]) == 2
    attempts.end_loading("a", "n2")  # on another node
    assert (attempts.ready(["n1", "n2"]), attempts.ready(["n1"])) == (3, 1)
    attempts.none_ready()
    assert attempts.ready(["n1", "n2"]) == 0


def test_a_node_whose_workers_leave_again_and_again_is_avoided() -> None:
    attempts = Attempts()
    for i in range(LEAVES - 1):
        attempts.begin("work/0", "sick", ["sick"])
        assert not attempts.leave("work/0", "sick", "")
        attempts.begin_loading("w", "sick", ["sick"])
        attempts.end("load/w")
        assert attempts.begin(f"work/{i + 1}", "well", ["well"]) == 0
        attempts.end(f"work/{i + 1}")
    assert attempts.begin("work/0", "sick", ["sick"]) == 0, "to leave is not to die"
    assert attempts.leave("work/0", "sick", "")
    assert attempts.avoided == {"sick"}


def outcome(uri: str, status: str, error: str = "no") -> Row:
    return {"input_uri": uri, "status": status, "error_type": "RuntimeError", "error": error}


def test_failures_wait_for_something_done() -> None:
    streaks = Streaks()
    assert streaks.take("a", [outcome("1", "failed"), outcome("2", "rejected")]) == [outcome("2", "rejected")]
    assert streaks.take("b", [outcome("3", "done")]) == [outcome("3", "done")]
    assert streaks.take("a", [outcome("4", "done")]) == [outcome("1", "failed"), outcome("4", "done")]
    assert streaks.take("a", [outcome("5", "failed")]) == []
    assert streaks.rest() == [outcome("5", "failed")]
    assert streaks.rest() == []


def test_too_many_failures_of_one_worker_stop_the_run() -> None:
    streaks = Streaks()
    streaks.take("a", [outcome(str(i), "failed") for i in range(FAILURES - 1)])
    streaks.take("a", [outcome("0", "failed")])
    streaks.take("b", [outcome("x", "done")])
    with pytest.raises(RunStopped, match="20 inputs in a row failed"):
        streaks.take("a", [outcome("last", "failed")])


def test_absent_inputs_may_be_many() -> None:
    gone = [outcome(str(i), "failed", "NotFound: s3://bucket/x: no such file") for i in range(2 * FAILURES)]
    assert Streaks().take("a", gone) == gone


class Sick(Stylizer):
    """Its device fails at once."""

    def results(self, variant: Variant, batch: Batch) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    def end_process(self) -> NoReturn:
        raise SystemExit(1)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    without_cluster(monkeypatch)
    return Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)


def test_a_sick_device_is_left_and_no_input_blamed(case: Case) -> None:
    case.add_pictures(5)
    with pytest.raises(SystemExit):
        case.run(Sick)
    assert case.rows() == []
    assert case.run().now == {"done": 5}


class Narrow(Stylizer):
    """Has memory for one picture at a time, and watches what a failed attempt leaves behind."""

    def results(self, variant: Variant, batch: Batch) -> Any:
        gc.collect()
        left = [reference for reference in self.__dict__.setdefault("left", []) if reference() is not None]
        assert not left, "tensors of the attempt that failed are alive"
        if len(batch) > 1:
            tensor = torch.zeros(10)
            self.__dict__["left"].append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().results(variant, batch)


def test_memory_that_runs_out_halves_the_batch(case: Case) -> None:
    case.add_pictures(5)
    assert case.run(Narrow).now == {"done": 5}


class Broken(Stylizer):
    """Fails whatever the input."""

    def results(self, variant: Variant, batch: Batch) -> Any:
        raise RuntimeError("broken")


def test_a_worker_that_always_fails_stops_the_run_and_records_nothing(case: Case) -> None:
    case.add_pictures(FAILURES + 5)
    with pytest.raises(RunStopped, match="RuntimeError: broken"):
        case.run(Broken)
    assert case.rows() == []


class Unwritable(Stylizer):
    """Storage refuses every second picture."""

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        if row["key"].endswith("1.png"):
            raise StorageError("s3://bucket/x: cannot write: 503 SlowDown; try again later")
        return super().keep(variant, row, result)


def test_a_fault_of_storage_leaves_rows_undecided(case: Case) -> None:
    case.add_pictures(5)
    with pytest.raises(RunStopped, match="cannot be stored: s3://bucket/x: cannot write: 503"):
        case.run(Unwritable)
    assert all(row["status"] == "done" for row in case.rows())
    assert sum(case.run().counts()[status] for status in ("done", "failed")) == 5
    assert case.check_consistent() == {"done": 5}


def test_a_style_that_cannot_be_loaded_stops_the_run(case: Case) -> None:
    case.add_pictures(1)
    case.root.write_bytes("styles/style-0-0.safetensors", b"\0" * case.root.size("styles/style-0-0.safetensors"))
    with pytest.raises(RunStopped, match=r"style-0@1 cannot be loaded: StorageRefused: .*sha256"):
        case.run()
    assert case.rows() == []


def test_leaving_again_and_again_avoids_the_node() -> None:
    ledger = LocalLedger()
    for _ in range(LEAVES - 1):
        ledger.leave("work/0", "sick")
    with pytest.raises(NodeAvoided, match="sick"):
        ledger.leave("work/0", "sick")
