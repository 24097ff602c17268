"""The end of a job whose Ray has gone: of this machine's raylet, or of the head (GCS).

Ray itself ends the process then, after pages of its own and with nothing recorded: at once, or a minute later. So a
thread watches both, and raises in the main thread what unwinds and is told as any other error.
"""

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from cluster.runtime.signals import interrupt

UNWIND_S = 8.0
"""Seconds for the main thread to unwind; it may be held by a call that waits for the head."""

_LOOK_EVERY_S = 0.5
_RAY_GIVES_UP_S = 60.0
"""Ray's own default, after which it ends this process."""
_HERE_S = 2.0
"""A head that was started here does not come back."""
_AGAIN = "what is recorded as done is safe: give the same command again"

last_words: list[Callable[[Exception], None]] = []
"""Called with the error where the main thread cannot be unwound."""


class RayLost(Exception):
    """Ray's processes are gone, and this one cannot go on; the message is for people."""


class _Lost:
    """Of this process: a Ray that is lost is not asked for anything any more, an orderly end included."""

    told = False


def is_lost() -> bool:
    """Whether a Ray that this process was connected to has gone."""
    return _Lost.told


@contextmanager
def watched(node: Any, started_here: bool) -> Iterator[None]:
    """While the body runs in the main thread, the loss of Ray ends it.

    Args:
        node: Ray's own description of the node that this process is connected to.

    Raises:
        RayLost: instead of whatever the body raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(node, started_here)
    watch.start()
    try:
        yield
    except BaseException as error:
        watch.unwound.set()
        # An error may be the first sign of it, but whoever stops a job has no other reason.
        if why := watch.why or (watch.look() if isinstance(error, Exception) else ""):
            _Lost.told = True
            raise RayLost(why) from None
        raise
    finally:
        watch.unwound.set()


class _Watch(threading.Thread):
    def __init__(self, node: Any, started_here: bool) -> None:
        super().__init__(name="ray", daemon=True)
        self._raylet = _listener(node.raylet_socket_name)
        self._logs = node.get_logs_dir_path()
        self._address, self._here = node.gcs_address, started_here
        self._silent_since: float | None = None
        self.why = ""
        self.unwound = threading.Event()

    def run(self) -> None:
        while not self.unwound.wait(_LOOK_EVERY_S):
            if why := self.look():
                self.why = why
                _Lost.told = True
                interrupt(why)
                if not self.unwound.wait(UNWIND_S):
                    _end(why)
                return

    def look(self) -> str:
        """What has gone; empty where nothing has."""
        if _is_dead(self._raylet):
            return f"Ray's process of this machine has died (raylet): see {self._logs}/raylet.out; {_AGAIN}"
        if _answers(self._address):
            self._silent_since = None
            return ""
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        most = _HERE_S if self._here else _patience()
        if now - self._silent_since < most:
            return ""
        return f"the head of the Ray cluster, {self._address}, has not answered for {most:.0f} s; {_AGAIN}"


def _patience() -> float:
    """A head may be started again: it has as long as Ray waits, less the time for our own end."""
    waits = _RAY_GIVES_UP_S
    with suppress(ValueError):
        waits = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", waits))  # noqa: SIM112 (Ray's)
    return max(_HERE_S, waits - UNWIND_S - 4)


def _listener(path: str) -> psutil.Process | None:
    """The process that listens on a Unix socket; None where that cannot be told."""
    # AttributeError: a system that does not say who listens, such as macOS.
    with suppress(OSError, AttributeError, psutil.Error), socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return psutil.Process(struct.unpack("3i", credentials)[0])
    return None


def _is_dead(process: psutil.Process | None) -> bool:
    if process is None:
        return False
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _end(why: str) -> None:
    """Of a process whose main thread hangs."""
    for say in last_words:
        with suppress(Exception):
            say(RayLost(why))
    with suppress(Exception):
        shown_again = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides the cursor
        print(f"{shown_again}error: {why}", file=sys.stderr)
    leave(1)


def leave(code: int) -> None:
    """End this process at once, and what it started: an orderly end would ask the Ray that has gone."""
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
