"""Running a job as a person does."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_job(job: str, *flags: object, expect: int = 0, timeout: float = 240, env: dict[str, str] | None = None) -> str:
    """``python jobs/<job>.py <flags>``; its output, both streams. Fails unless it exits with ``expect``."""
    done = subprocess.run(_command(job, flags), **_options(env), timeout=timeout, check=False)
    assert done.returncode == expect, f"exit code {done.returncode}, not {expect}:\n{done.stdout}"
    return done.stdout


def call_job(job: str, *flags: object, expect: int = 0) -> str:
    """As :func:`run_job`, in this process: without the seconds that imports take, on the Ray it is connected to."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setattr("sys.argv", _command(job, flags)[1:])
        with pytest.raises(SystemExit) as left:
            import_module(f"jobs.{job}").command()
    assert left.value.code == expect, f"exit code {left.value.code}, not {expect}:\n{output.getvalue()}"
    return output.getvalue()


def kill_job_when(job: str, *flags: object, condition: Callable[[], bool], timeout: float = 240) -> None:
    """Start a job, and SIGKILL it with everything it started as soon as ``condition`` holds."""
    process = subprocess.Popen(_command(job, flags), **_options(None), start_new_session=True)
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            assert process.poll() is None, f"the job ended before it could be killed:\n{process.communicate()[0]}"
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.02)  # the interval of polling, not a wait for an effect
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def kill_child_when(
    job: str, *flags: object, child: str, condition: Callable[[], bool], which: int = 0, timeout: float = 240
) -> str:
    """Start a job, SIGKILL a process named ``child`` as soon as ``condition`` holds, and let the job go on.

    ``which`` of them, in the order of their pids.

    Returns its output; fails unless it exits with 0.
    """
    process = subprocess.Popen(_command(job, flags), **_options(None), start_new_session=True)
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            assert process.poll() is None, f"the job ended before it could be hurt:\n{process.communicate()[0]}"
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.02)  # the interval of polling, not a wait for an effect
        family = [p for p in psutil.Process(process.pid).children(recursive=True) if child in p.name()]
        sorted(family, key=lambda member: member.pid)[which].kill()
        output = process.communicate(timeout=timeout)[0]
        assert process.returncode == 0, output
        return output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _command(job: str, flags: tuple[object, ...]) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]


def _options(env: dict[str, str] | None) -> dict[str, object]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | (env or {})
    return {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
