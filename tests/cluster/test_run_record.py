"""Run records, exit codes and what is kept out of both."""

import json
import re
import sys

import pytest
from pydantic import BaseModel

from cluster.commandline.cli import ExitCode
from cluster.commandline.redact import redact, redact_argv
from cluster.runtime.run_record import RunRecord, new_run_id, run_record
from cluster.runtime.signals import Stopped
from cluster.storage import Storage, StorageError


class Config(BaseModel):
    base: str = "mini64"
    token: str = "hunter2-hunter2"


def read(storage: Storage, record: RunRecord) -> dict[str, object]:
    content = json.loads(storage.read_bytes(f"runs/{record.run_id}.json"))
    assert isinstance(content, dict)
    return content


def test_a_run_is_recorded_at_its_start_and_its_end(storage: Storage) -> None:
    with run_record(storage, job="stylize", config=Config()) as record:
        begun = read(storage, record)
        with record.timed("encode"):
            record.counts["done"] = 24
        with record.timed("encode"):
            pass
    ended = read(storage, record)
    assert (begun["outcome"], begun["ended_at"], begun["job"]) == ("running", None, "stylize")
    assert (ended["outcome"], ended["counts"], ended["error"]) == ("done", {"done": 24}, None)
    assert ended["config"] == {"base": "mini64", "token": "[redacted]"}
    assert set(ended["versions"]) >= {"python", "ray", "torch"}  # type: ignore[call-overload]
    assert list(ended["timings"]) == ["encode"]  # type: ignore[call-overload]
    assert record.exit_code == ExitCode.DONE
    assert RunRecord.model_validate(ended).seconds is not None
    assert storage.list_files("runs") == [f"{record.run_id}.json"]


@pytest.mark.parametrize("kind", ["rejected", "failed"])
def test_recorded_failures_are_an_outcome(tmp_path: str, kind: str) -> None:
    storage = Storage.open(tmp_path)
    with run_record(storage, job="stylize", config={}) as record:
        record.counts |= {"done": 1, kind: 2}
    assert read(storage, record)["outcome"] == "done-with-failures"
    assert record.exit_code == ExitCode.RECORDED_FAILURES


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("no good"), "failed"),
        (KeyboardInterrupt(), "stopped"),
        (Stopped("stopped by SIGTERM"), "stopped"),
        (SystemExit(15), "stopped"),
    ],
)
def test_every_way_to_end_is_recorded_and_raised_on(tmp_path: str, error: BaseException, outcome: str) -> None:
    storage = Storage.open(tmp_path)
    with pytest.raises(type(error)), run_record(storage, job="x", config={}) as record:
        raise error
    ended = read(storage, record)
    assert ended["outcome"] == outcome
    assert str(ended["error"]).startswith(type(error).__name__)


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(tmp_path)

    def refuse(*_: object, **__: object) -> bool:
        raise StorageError("disk full")

    def fail() -> None:
        with run_record(storage, job="x", config={}):
            monkeypatch.setattr(Storage, "write_bytes", refuse)
            raise ValueError("the real one")

    with pytest.raises(ValueError, match="the real one") as caught:
        fail()
    assert any("disk full" in note for note in caught.value.__notes__)


def test_no_secret_reaches_a_record(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setattr(
        sys, "argv", ["x.py", "--api-token", "abc-123", "--url=https://me:pw-1@host/a?X-Amz-Signature=9f"]
    )
    storage = Storage.open(tmp_path)
    config = {"deep": [{"password": "pw-2", "uri": "http://u:pw-3@h/", "plain": "a wJalrXUtnFEMI b"}], "iterations": 3}
    with pytest.raises(ValueError, match="bad"), run_record(storage, job="x", config=config) as record:
        raise ValueError("bad wJalrXUtnFEMI")
    text = storage.read_bytes(f"runs/{record.run_id}.json").decode()
    for secret in ("wJalrXUtnFEMI", "abc-123", "pw-1", "pw-2", "pw-3", "9f"):
        assert not re.search(rf"\b{secret}\b", text), secret
    assert read(storage, record)["config"]["iterations"] == 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--storage", "s3://b/x", "--token", "t"], ["--storage", "s3://b/x", "--token", "[redacted]"]),
        (["--secret-key=abc", "--seed=1"], ["--secret-key=[redacted]", "--seed=1"]),
        (["--tokenizer", "clip", "--dry-run"], ["--tokenizer", "clip", "--dry-run"]),
    ],
)
def test_command_lines_are_redacted(argv: list[str], expected: list[str]) -> None:
    assert redact_argv(argv) == expected


def test_redaction_keeps_what_is_no_secret() -> None:
    value = {"a": 1, "b": [None, True, 2.5, "s3://bucket/key?.png"], "url": "http://h:1/x"}
    assert redact({**value, "b": [None, True, 2.5, "plain"]}) == {**value, "b": [None, True, 2.5, "plain"]}


def test_run_ids_are_unique_and_safe_as_names() -> None:
    ids = {new_run_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}", run_id) for run_id in ids)
