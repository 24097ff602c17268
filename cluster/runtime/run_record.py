"""The record of a job's run, one JSON file ``<storage>/runs/<run_id>.json``.

It is written whole when the run starts, with outcome ``running``, and again when it ends. A record that still says
``running`` long after its start is that of a run that was killed.
"""

import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.commandline.exit_code import ExitCode
from cluster.commandline.logs import of_run
from cluster.commandline.redact import redact, redact_argv
from cluster.runtime.loss import last_words
from cluster.storage import Storage, StorageError

Outcome = Literal["running", "done", "done-with-failures", "failed", "stopped"]

_FAILURE_COUNTS = ("failed", "rejected")
_PACKAGES = ("osasis-on-ray", "ray", "torch")


class RunRecord(BaseModel):
    """One run of one job. Times are UTC, durations seconds."""

    model_config = ConfigDict(extra="forbid")

    run_id: str
    job: str
    argv: list[str]
    config: dict[str, Any]
    versions: dict[str, str]
    git_commit: str | None
    host: str
    started_at: datetime
    ended_at: datetime | None = None
    seconds: float | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    outcome: Outcome = "running"
    error: str | None = None

    @property
    def exit_code(self) -> ExitCode:
        """For a run whose body came to its end: 3 if ``counts`` hold any ``failed`` or ``rejected``, else 0."""
        failures = any(self.counts.get(name) for name in _FAILURE_COUNTS)
        return ExitCode.RECORDED_FAILURES if failures else ExitCode.DONE

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the seconds of its body to ``timings[name]``."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = round(self.timings.get(name, 0.0) + time.monotonic() - start, 3)

    def write(self, storage: Storage) -> None:
        """Raises StorageError."""
        content = redact(self.model_dump(mode="json", exclude={"argv"})) | {"argv": redact_argv(self.argv)}
        storage.write_bytes(f"runs/{self.run_id}.json", RunRecord(**content).model_dump_json(indent=2).encode())


@contextmanager
def run_record(storage: Storage, *, job: str, config: BaseModel | Mapping[str, Any]) -> Iterator[RunRecord]:
    """Records the run of its body; the outcome follows from how the body ends and from ``counts``.

    ``done``; ``done-with-failures`` (see :attr:`RunRecord.exit_code`); ``stopped`` by Ctrl-C, SIGTERM or ``sys.exit``;
    ``failed`` by any other exception, which is raised on.

    Raises:
        StorageError: the record cannot be written.
    """
    record = RunRecord(
        run_id=new_run_id(),
        job=job,
        argv=redact_argv(sys.argv),
        config=redact(config.model_dump() if isinstance(config, BaseModel) else dict(config)),
        versions=_versions(),
        git_commit=_git_commit(),
        host=platform.node(),
        started_at=datetime.now(UTC),
    )
    of_run(job, record.run_id)
    start = time.monotonic()
    record.write(storage)

    def close(outcome: Outcome, error: BaseException | None = None) -> None:
        record.ended_at, record.seconds = datetime.now(UTC), round(time.monotonic() - start, 3)
        record.outcome, record.error = outcome, redact(f"{type(error).__name__}: {error}") if error else None
        try:
            record.write(storage)
        except StorageError as unwritten:
            if error is None:
                raise
            error.add_note(f"and the run record could not be written: {unwritten}")

    def close_at_loss(error: Exception) -> None:
        close("failed", error)

    last_words.append(close_at_loss)
    try:
        yield record
    except BaseException as error:
        close("failed" if isinstance(error, Exception) else "stopped", error)
        raise
    finally:
        last_words.remove(close_at_loss)
    close("done" if record.exit_code == ExitCode.DONE else "done-with-failures")


def records(storage: Storage, limit: int, job: str | None = None) -> Iterator[RunRecord]:
    """Of the runs below ``storage``, the newest first.

    Records that cannot be read, damaged or of a later version, are skipped.
    """
    found = 0
    for name in sorted(storage.list_files("runs", recursive=False), reverse=True):
        if not name.endswith(".json") or found == limit:
            continue
        try:
            record = RunRecord.model_validate_json(storage.read_bytes(f"runs/{name}"))
        except (StorageError, ValidationError):
            continue
        if job is None or record.job == job:
            found += 1
            yield record


def new_run_id() -> str:
    """Sorts by time; unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the project itself, when it travels as a working directory
            continue
    return found


def _git_commit() -> str | None:
    """Commit of this checkout, with ``-dirty`` if files differ; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
