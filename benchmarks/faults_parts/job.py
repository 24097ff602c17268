"""A job as its user runs it: a process that is killed now and then, and given again until it is through."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


class Job:
    """A process of one command after the other.

    Args:
        command: of ``python``, from the root of the checkout.
        submit_to: Ray's dashboard, to run the command by ``ray job submit``; None: as a process beside the head.
        drivers: the processes of a submitted job, which are none of this process's own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: dict[str, str],
        log: Path,
        submit_to: str | None = None,
        drivers: Callable[[], list[psutil.Process]] = list,
    ) -> None:
        self.name = name
        self.command = [sys.executable, *command]
        if submit_to:
            ray = str(Path(sys.executable).with_name("ray"))
            submit = [ray, "job", "submit", "--address", submit_to, "--working-dir", ".", "--"]
            self.command = [*submit, "python", *command]
        self._submitted, self._drivers = bool(submit_to), drivers
        self._env, self._log = env, log
        self.start()

    def start(self) -> None:
        self.started = time.monotonic()
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, env=self._env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def kill(self) -> bool:
        """SIGKILL; whether it ran until then."""
        if self._submitted:
            drivers = [process for process in self._drivers() if process.is_running()]
            for process in drivers:
                process.kill()
            self.process.wait(120)  # as its user learns that it has failed
            return bool(drivers)
        if not self.runs():
            return False
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return True

    def kill_and_restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.runs():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def code(self) -> int:
        """With which it ended; of a submitted job, what Ray says of its driver."""
        code = self.process.wait()
        told = re.findall(r"exit code (\d+)", self.output()) if self._submitted and code else []
        return int(told[-1]) if told else code

    def output(self) -> str:
        """Since the last start."""
        return self._log.read_bytes()[self._begin :].decode(errors="replace")

    def last_words(self, lines: int = 1) -> str:
        told = [line.rstrip() for line in self.output().splitlines() if line.strip() and "│" not in line]
        errors = [line for line in told if "error" in line.lower()]
        return "\n".join((errors if errors and lines == 1 else told)[-lines:])
