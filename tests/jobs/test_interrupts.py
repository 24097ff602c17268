"""Jobs on a terminal as people use it: Ctrl-C, Ctrl-C again, the window closed. One Ray, soon gone, recorded.

And jobs whose Ray dies under them.
"""

import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from cluster.runtime.run_record import RunRecord
from cluster.storage import Storage
from tests.support.hostile import encoded, picture
from tests.support.jobs_run import ROOT
from tests.support.stylize_case import Case

MARK = "OSASIS_TEST_MARK"
CTRL_C = b"\x03"


@dataclass
class Session:
    """A job that leads a session of its own, on a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    mark: str
    rays: Path
    """Below it Ray keeps a folder for each that is started."""
    shown: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        with suppress(OSError):  # the terminal is closed at the end
            while data := os.read(self.terminal, 1 << 16):
                self.shown.extend(data)

    def family(self) -> list[str]:
        """Command lines of all processes that came of the job, whoever is their parent by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
        return found

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.shown[-4000:].decode(errors="replace")
            assert time.monotonic() < deadline, self.shown[-4000:].decode(errors="replace")
            time.sleep(0.05)  # the interval of polling, not a wait for an effect


@contextmanager
def on_a_terminal(command: list[str], folder: Path) -> Iterator[Session]:
    ours, theirs = pty.openpty()
    rays = Path(f"/tmp/r{uuid.uuid4().hex[:8]}")  # short: Ray puts sockets below it
    rays.mkdir()

    def take() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        for number in (signal.SIGINT, signal.SIGHUP):  # the tests may run in the background, which ignores them
            signal.signal(number, signal.SIG_DFL)

    mark = uuid.uuid4().hex
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env | {MARK: mark, "RAY_TMPDIR": str(rays)}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=take,
    )  # fmt: skip
    os.close(theirs)
    session = Session(process, ours, mark, rays)
    threading.Thread(target=session.read, daemon=True).start()
    try:
        yield session
    finally:
        for left in psutil.process_iter():
            with suppress(psutil.Error):
                if left.environ().get(MARK) == mark:
                    left.kill()
        process.wait()
        subprocess.run(["rm", "-rf", str(rays)], check=True)


def stylizing(folder: Path) -> tuple[list[str], Callable[[], bool]]:
    """A command that takes minutes, and whether it is in the middle."""
    case = Case.make(Storage.open(folder), folder, styles=1)
    case.add_pictures(400)
    images = folder / "out" / "images"
    command = case.command(encode_steps=100, decode_steps=50, batch_size=1, workers=1)
    return command, lambda: any(images.glob("*/*.png"))


def training(folder: Path) -> tuple[list[str], Callable[[], bool]]:
    case = Case.make(Storage.open(folder), folder, styles=0)
    (folder / "art.png").write_bytes(encoded(picture(), "PNG"))
    train = {"iterations": 100_000, "style_photo": {"steps": 10, "candidates": 1}}
    styles = [{"id": "art", "image": str(folder / "art.png")}]
    file = folder / "styles.yaml"
    file.write_text(yaml.safe_dump({"base": str(case.base), "storage": str(folder), "train": train, "styles": styles}))
    command = [case.command()[0], str(ROOT / "jobs" / "train_styles.py"), "--config", str(file)]
    return command, lambda: any((folder / "train").rglob("*.pt"))


def interrupted(session: Session) -> None:
    os.write(session.terminal, CTRL_C)


def interrupted_again(session: Session) -> None:
    os.write(session.terminal, CTRL_C)
    session.wait_until(lambda: session.shown.count(b"^C") >= 1)
    os.write(session.terminal, CTRL_C)


def closed(session: Session) -> None:
    os.close(session.terminal)


def raylet_died(session: Session) -> None:
    _kill(session, "raylet")


def head_died(session: Session) -> None:
    _kill(session, "gcs_server")


def _kill(session: Session, name: str) -> None:
    (process,) = [p for p in psutil.Process(session.process.pid).children(recursive=True) if p.name() == name]
    process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "stop", "outcome", "told"),
    [
        (stylizing, interrupted_again, "stopped", "stopped by Ctrl-C"),
        (stylizing, closed, "stopped", "stopped by SIGHUP"),
        (training, interrupted, "stopped", "stopped by Ctrl-C"),
        (stylizing, head_died, "failed", "has not answered"),
        (stylizing, raylet_died, "failed", "has died (raylet)"),
    ],
)
def test_a_job_that_is_stopped_ends_soon_leaves_nothing_and_says_so(
    job: Callable[[Path], tuple[list[str], Callable[[], bool]]],
    stop: Callable[[Session], None],
    outcome: str,
    told: str,
    tmp_path: Path,
) -> None:
    command, in_the_middle = job(tmp_path)
    with on_a_terminal(command, tmp_path) as session:
        session.wait_until(in_the_middle)
        stop(session)
        assert session.process.wait(timeout=25) == 1, session.shown[-4000:].decode(errors="replace")

        @retry(retry=retry_if_result(bool), stop=stop_after_delay(15), wait=wait_fixed(0.2), retry_error_callback=_last)
        def left() -> list[str]:
            return session.family()

        assert left() == []
        rays = [path.name for path in session.rays.rglob("session_2*") if path.is_dir()]
        assert len(rays) == 1, "more than one Ray"
        shown = session.shown[-4000:].decode(errors="replace")
        assert not [sign for sign in ("Traceback", "state-dump", ".cc:") if sign in shown], shown
        assert stop is closed or shown.count("error:") == 1, shown
    (record,) = (tmp_path / "runs").iterdir()
    recorded = RunRecord.model_validate_json(record.read_bytes())
    assert (recorded.outcome, told in (recorded.error or "")) == (outcome, True), recorded


def _last(state: object) -> object:
    return state.outcome.result()  # type: ignore[attr-defined]
