"""What jobs/status.py shows of a storage's runs."""

import json
from contextlib import suppress

import pytest

from cluster.runtime.run_record import RunRecord, records, run_record
from cluster.storage import Storage
from jobs import status


def shown(storage: Storage, *flags: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.argv", ["status", "--storage", storage.uri, *flags])
    monkeypatch.setenv("COLUMNS", "250")
    assert status.main() == 0
    return capsys.readouterr().out


def test_runs_are_listed_the_newest_first_with_counts_and_errors(
    storage: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_record(storage, job="train_styles", config={}) as first:
        first.run_id = "20260101T000000Z-1"
        first.counts["registered"] = 2
    with suppress(RuntimeError), run_record(storage, job="stylize", config={}) as second:
        second.run_id = "20260102T000000Z-1"
        raise RuntimeError("no such device")
    storage.write_bytes("runs/20260103T000000Z-1.json", b'{"damaged"')
    text = shown(storage, capsys=capsys, monkeypatch=monkeypatch)
    assert text.index("no such device") < text.index("2 registered")
    assert "stylize" in text
    only = shown(storage, "--job", "stylize", "--json-lines", capsys=capsys, monkeypatch=monkeypatch)
    assert {json.loads(line)["job"] for line in only.splitlines()} == {"stylize"}


def test_a_storage_without_runs_says_so(
    storage: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no runs below" in shown(storage, capsys=capsys, monkeypatch=monkeypatch)


def test_a_run_that_has_not_ended_shows_how_long_it_has_been_going(storage: Storage) -> None:
    with run_record(storage, job="stylize", config={}) as record:
        (found,) = records(storage, 5)
        assert isinstance(found, RunRecord)
        assert found.run_id == record.run_id
        assert status.row(found, found.started_at)[2:5] == ["running", f"{found.started_at:%Y-%m-%d %H:%M}", "0:00:00"]
