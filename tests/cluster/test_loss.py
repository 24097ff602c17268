"""Ray's processes go while a job runs: what it does about it, without Ray."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.runtime import loss
from cluster.runtime.loss import RayLost, is_lost, watched
from cluster.runtime.signals import Stopped, stopped_by_signals

_LISTEN = """
import socket, sys
unix, tcp = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
unix.bind(sys.argv[1])
unix.listen()
print(tcp.getsockname()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Listener:
    """A process that listens as a raylet and as a head do."""

    process: subprocess.Popen[str]
    raylet_socket_name: str
    port: int

    @property
    def gcs_address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get_logs_dir_path(self) -> str:
        return "/logs"

    def die(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Node:
    raylet: Listener
    head: Listener

    def __getattr__(self, name: str) -> object:
        return getattr(self.head if name == "gcs_address" else self.raylet, name)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(loss, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(loss, "_HERE_S", 0.1)
    monkeypatch.setattr(loss._Lost, "told", False)
    started = []
    for name in ("raylet", "head"):
        path = str(tmp_path / name)
        process = subprocess.Popen(
            [sys.executable, "-c", _LISTEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        started.append(Listener(process, path, int(process.stdout.readline())))
    yield Node(*started)
    for listener in started:
        listener.die()


def watching(node: Node, body: Callable[[], object]) -> None:
    with stopped_by_signals(), watched(node, started_here=True):
        body()


def failing() -> None:
    raise ValueError("mine")


@pytest.mark.parametrize(
    ("dies", "told"), [("raylet", r"has died \(raylet\): see /logs/raylet.out"), ("head", "has not answered for")]
)
def test_the_loss_of_ray_ends_what_runs(node: Node, dies: str, told: str) -> None:
    def body() -> None:
        getattr(node, dies).die()
        threading.Event().wait(30)

    with pytest.raises(RayLost, match=told):
        watching(node, body)
    assert is_lost()


def test_an_error_that_comes_of_it_is_told_as_the_loss(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_LOOK_EVERY_S", 60)

    def body() -> None:
        node.raylet.die()
        failing()

    with pytest.raises(RayLost, match="has died"):
        watching(node, body)


def test_other_errors_and_signals_stay_what_they_are(node: Node) -> None:
    with pytest.raises(ValueError, match="mine"):
        watching(node, failing)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        watching(node, lambda: signal.raise_signal(signal.SIGTERM))
    assert not is_lost()


def test_a_head_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s", raising=False)
    assert loss.UNWIND_S < 60 - loss._patience() < 15  # Ray itself ends the process after 60 s
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "300")
    assert loss.UNWIND_S < 300 - loss._patience() < 15


def test_a_main_thread_that_hangs_is_not_waited_for(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left, said = threading.Event(), []
    monkeypatch.setattr(loss, "UNWIND_S", 0.1)
    monkeypatch.setattr(loss, "leave", lambda code: left.set())
    monkeypatch.setattr(loss, "last_words", [said.append])

    def body() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as in a call that handles no signals
        node.raylet.die()
        assert left.wait(30)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    with pytest.raises(RayLost):
        watching(node, body)
    assert [str(error) for error in said] == [capsys.readouterr().err.removeprefix("error: ").strip()]
    assert "has died" in str(said[0])
