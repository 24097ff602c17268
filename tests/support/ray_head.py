"""A cluster as its operator starts it: ``ray start``, on the loopback interface, with token authentication."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from tenacity import retry, stop_after_delay, wait_fixed

from tests.support.jobs_run import ROOT

RAY = str(Path(sys.executable).with_name("ray"))
_PORTS = 1000
"""For the workers of a node."""


_patiently = retry(stop=stop_after_delay(90), wait=wait_fixed(0.5), reraise=True)


@dataclass
class Head:
    """A running head node; its environment lets clients in."""

    env: dict[str, str]
    folder: Path
    started: list[psutil.Process] = field(default_factory=list)
    metrics_ports: list[int] = field(default_factory=list)

    @property
    def dashboard(self) -> str:
        return self.env["RAY_API_SERVER_ADDRESS"]

    def submit(self, job: str, *flags: object, expect: int = 0) -> str:
        """``ray job submit``; the log, with the job's own exit code checked."""
        command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", f"jobs/{job}.py", *map(str, flags)]
        done = subprocess.run(
            command, cwd=ROOT, env=self.env, timeout=300, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        assert (done.returncode == 0) == (expect == 0), done.stdout
        return done.stdout

    def join(self, cpus: int) -> psutil.Process:
        """Another node, which is there when this returns: two that start at once would meet."""
        before = self.nodes()
        node = self.start(f"--address={self.env['RAY_ADDRESS']}", f"--num-cpus={cpus}")

        @_patiently
        def there() -> None:
            assert self.nodes() > before

        there()
        return node

    def nodes(self) -> int:
        """How many are alive, the head included."""
        answer = self.ask("/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE")
        return len(answer["data"]["result"]["result"])

    def ask(self, path: str) -> Any:
        """What the dashboard answers, as its clients ask."""
        token = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        answer = requests.get(f"{self.dashboard}{path}", headers=token, timeout=5)
        answer.raise_for_status()
        return answer.json()

    def start(self, *options: str) -> psutil.Process:
        number = len(self.started)
        first = 23000 + _PORTS * number
        # A folder each, as on machines of their own: Ray unpacks code into it, and a node that goes clears up.
        options += (f"--temp-dir={self.folder / str(number)}",)
        # The default port of the agent would meet that of any other Ray on this machine.
        options += (f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=200000000")
        self.metrics_ports.append(free_port())
        options += (f"--metrics-export-port={self.metrics_ports[-1]}",)
        options += (f"--min-worker-port={first}", f"--max-worker-port={first + _PORTS - 1}")
        process = subprocess.Popen(
            [RAY, "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", *options],
            env={k: v for k, v in self.env.items() if k != "RAY_ADDRESS"}, stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.started.append(psutil.Process(process.pid))
        return self.started[-1]

    def metrics(self) -> str:
        """What Prometheus finds on the nodes that answer."""
        found = []
        for port in self.metrics_ports:
            with suppress(requests.RequestException):
                found.append(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text)
        return "\n".join(found)

    def has_process(self, node: psutil.Process, title: str) -> bool:
        """Whether a process of the node has ``title`` in its command line."""
        for process in _family(node):
            with suppress(psutil.Error):
                if title in " ".join(process.cmdline()):
                    return True
        return False

    def kill(self, node: psutil.Process) -> None:
        """As a machine goes: all its processes at once, none of them told."""
        family = _family(node)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=20)


def _family(node: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [node, *node.children(recursive=True)]
    return []


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running_head(cpus: int) -> Iterator[Head]:
    """A head of so many CPUs that answers; gone at the end with all nodes that joined it."""
    port, dashboard = free_port(), free_port()
    env = dict(os.environ) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"  # as in an activated environment
    address = f"http://127.0.0.1:{dashboard}"
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: Ray puts Unix sockets below it
    head = Head(env | {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_API_SERVER_ADDRESS": address}, folder)

    @_patiently
    def ready() -> None:
        head.ask("/api/jobs/")

    try:
        head.start(
            "--head", f"--port={port}", f"--num-cpus={cpus}", f"--dashboard-port={dashboard}",
            "--dashboard-host=127.0.0.1",
        )  # fmt: skip
        ready()
        yield head
    finally:
        for node in reversed(head.started):
            head.kill(node)
        shutil.rmtree(folder, ignore_errors=True)
