"""Two stylize runs on one output: the second leaves or waits, and never writes beside the first."""

from pathlib import Path

import pytest

from catalog.manifest import Manifest
from cluster.commandline.config_file import ConfigError
from cluster.runtime import lease as lease_module
from cluster.runtime.lease import LeaseHeld, LeaseLost, lease
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from jobs import stylize
from jobs.streaming.exclusive import exclusive
from jobs.streaming.recording import Record
from jobs.streaming.variants import Variant
from tests.support.in_process import without_cluster
from tests.support.stylize_case import Case


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_GRACE_S", 0.0)
    monkeypatch.setattr(lease_module, "_POLL_S", 0.02)


def test_the_second_run_says_who_works_on_the_output_and_writes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add_pictures(2)
    without_cluster(monkeypatch)
    monkeypatch.setattr("sys.argv", case.argv())
    output = case.root.child("out")
    with (
        lease(output, "manifest", run_id="first", job="stylize", wait=False),
        pytest.raises(LeaseHeld, match=r"in use by run first \(stylize\)"),
    ):
        stylize.main()
    assert case.rows() == []
    assert stylize.main() == 0
    assert case.check_consistent() == {"done": 2}
    assert output.list_files("leases") == []


def test_pictures_of_other_parameters_made_while_this_run_waited_are_refused(storage: Storage) -> None:
    table, row = Manifest(storage), Variant("waves", 1, params_hash="theirs")
    with run_record(storage, job="stylize", config={}) as record:  # noqa: SIM117
        with exclusive(storage, table, [row], record, "leave"):
            table.append([{"input_uri": "a.png", "status": "done", **row.columns}])
    with run_record(storage, job="stylize", config={}) as record:  # noqa: SIM117
        with pytest.raises(ConfigError, match="made with other parameters"):
            with exclusive(storage, table, [Variant("waves", 1, params_hash="ours")], record, "leave"):
                pass


def test_a_run_that_lost_its_lease_commits_nothing(storage: Storage) -> None:
    def lost() -> None:
        raise LeaseLost("another run holds it")

    variant = Variant("waves", 1, params_hash="ours")
    record = Record(Manifest(storage), [variant], run_id="run", seed=0, before_commit=lost)
    outcome = {"input_uri": "a.png", "variant": variant.label, "status": "done", "error_type": None, "seconds": 0.1}
    record.add("worker", [outcome])
    with pytest.raises(LeaseLost):
        record.flush()
    assert Manifest(storage).table() is None
