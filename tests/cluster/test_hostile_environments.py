"""Environments that jobs meet in the field, each a named case: what they lead to is a sentence and the right exit code.

A case is a function with ``@environment("name")``; it takes what it asks for of the fixtures below. Most run in this
process or in one small process with :func:`cluster.commandline.cli.run_job`, which is what all jobs start by.
"""

import errno
import inspect
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster.commandline.cli import ConfigError, parse_flags, run_job
from cluster.commandline.terminal import plain
from cluster.runtime import connection, signals
from cluster.runtime.connection import ClusterError, ClusterInfo, connect
from cluster.runtime.run_record import RunRecord, run_record
from cluster.runtime.signals import Stopped, signals_held, stopped_by_signals
from cluster.storage import Storage, StorageError
from tests.support.s3_server import S3
from tests.support.storage_cases import CASES
from tests.support.storage_environments import Environment

ROOT = Path(__file__).parents[2]
ENVIRONMENTS: dict[str, Callable[..., None]] = {}


def environment(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a case."""

    def add(case: Callable[..., None]) -> Callable[..., None]:
        assert name not in ENVIRONMENTS
        ENVIRONMENTS[name] = case
        return case

    return add


ENVIRONMENTS |= {f"storage: {case.__name__.replace('_', ' ')}": case for case in CASES}


@pytest.fixture
def env(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Environment]:
    """What the cases of storage change."""
    with ExitStack() as servers:
        yield Environment(monkeypatch, tmp_path, s3, servers)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_hostile_environment(name: str, request: pytest.FixtureRequest) -> None:
    case = ENVIRONMENTS[name]
    case(*(request.getfixturevalue(wanted) for wanted in inspect.signature(case).parameters))


def test_how_many_environments_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{len(ENVIRONMENTS)} hostile environments")
    assert len(ENVIRONMENTS) >= 40


@pytest.fixture(autouse=True)
def _no_cluster_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


# --- a small job in a process of its own ---------------------------------------------------------------------------

PRELUDE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from rich.console import Console
from rich.table import Table
from cluster.commandline.cli import ConfigError, Problem, run_job
from cluster.runtime import signals
from cluster.runtime.run_record import run_record
from cluster.storage import Storage

here = Path(sys.argv[1])

def table(count=1):
    for _ in range(count):
        table = Table("style", "state")
        table.add_row("van-gogh…", "café → 3×")
        Console().print(table)
"""


def _heed() -> None:
    """Signals have their effect, even where the tests run in the background, which ignores Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def job(body: str, folder: Path, expect: int, *, env: dict[str, str] | None = None, **options: Any) -> str:
    """Runs ``main`` of ``body`` by run_job; what it printed on both streams, unless ``options`` redirect them."""
    script = folder / "job.py"
    script.write_text(PRELUDE + textwrap.dedent(body) + "\nrun_job(main)\n")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, "preexec_fn": _heed} | options
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONIO")}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "60"} | (env or {})
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, env=environment, timeout=120, check=False, **options)
    shown = (done.stdout or b"") + (done.stderr or b"")
    assert done.returncode == expect, shown.decode(errors="replace")
    assert b"Traceback" not in shown, shown.decode()
    return shown.decode("latin-1")


TABLES = """
def main():
    table(500)
    (here / "done").write_text("yes")
    return 0
"""


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@environment("a pipe whose reader has ended")
def _(tmp_path: Path) -> None:
    job(TABLES, tmp_path, 0, stdout=closed_pipe())
    assert (tmp_path / "done").exists()


@environment("errors into a pipe whose reader has ended")
def _(tmp_path: Path) -> None:
    body = """
    def main():
        raise ConfigError(Problem("--x", "is wrong"))
    """
    job(body, tmp_path, 2, stderr=closed_pipe())


@environment("output to a full device")
def _(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        job(TABLES, tmp_path, 0, stdout=full, stderr=full)
    assert (tmp_path / "done").exists()


def closed(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


INTO_A_FILE = """
def main():
    with (here / "file").open("w") as file:
        file.write("content\\n")
        file.flush()
        table()
        print("printed", file=sys.stderr)
    return 0
"""


@environment("a closed stdout: the next file opened must not receive what is printed")
def _(tmp_path: Path) -> None:
    job(INTO_A_FILE, tmp_path, 0, preexec_fn=closed(1))
    assert (tmp_path / "file").read_text() == "content\n"


@environment("all three streams closed")
def _(tmp_path: Path) -> None:
    job(INTO_A_FILE, tmp_path, 0, preexec_fn=closed(0, 1, 2))
    assert (tmp_path / "file").read_text() == "content\n"


ONE_TABLE = """
def main():
    table()
    print("10⁹ \\udce9")
    return 0
"""


@environment("an ASCII terminal")
def _(tmp_path: Path) -> None:
    shown = job(ONE_TABLE, tmp_path, 0, env={"PYTHONIOENCODING": "ascii"})
    assert "van-gogh..." in shown
    assert "cafe -> 3x" in shown
    assert "+-" in shown
    assert "109 ?" in shown


@environment("a Latin-1 terminal")
def _(tmp_path: Path) -> None:
    shown = job(ONE_TABLE, tmp_path, 0, env={"PYTHONIOENCODING": "latin-1"})
    assert "van-gogh..." in shown
    assert "café -> 3×" in shown


@environment("the C locale, with Python's own help for it switched off")
def _(tmp_path: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert "van-gogh..." in job(ONE_TABLE, tmp_path, 0, env=env)


@environment("help on an ASCII terminal, with characters that it lacks")
def _(tmp_path: Path) -> None:
    body = """
    from pydantic import Field
    from cluster.commandline.cli import JobFlags, parse_flags

    class Flags(JobFlags):
        \"\"\"Measures.\"\"\"

        rate: float = Field(1.0, description="In 10⁹ FLOP/s…")

    def main():
        parse_flags(Flags, ["--help"])
    """
    assert "In 109 FLOP/s..." in job(body, tmp_path, 0, env={"PYTHONIOENCODING": "ascii"})


@environment("a character that no table names")
def _() -> None:
    assert "日x".encode("ascii", "ignore") == b"x"
    assert plain(UnicodeEncodeError("ascii", "日é", 0, 2, "")) == ("?e", 2)


@environment("a dumb terminal of twenty columns")
def _(tmp_path: Path) -> None:
    assert "style" in job(ONE_TABLE, tmp_path, 0, env={"TERM": "dumb", "COLUMNS": "20"})


# --- signals ---------------------------------------------------------------------------------------------------------

STOPPED = """
def main():
    with run_record(Storage.open(here), job="t", config={{}}):
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
"""


def record_of(folder: Path) -> RunRecord:
    (file,) = (folder / "runs").iterdir()
    return RunRecord.model_validate_json(file.read_bytes())


def stopped(name: str, folder: Path, told: str) -> None:
    assert told in job(STOPPED.format(name=name), folder, 1)
    assert (record_of(folder).outcome, told in (record_of(folder).error or "")) == ("stopped", True)


@environment("Ctrl-C")
def _(tmp_path: Path) -> None:
    stopped("SIGINT", tmp_path, "stopped by Ctrl-C")


@environment("the terminal is closed (SIGHUP)")
def _(tmp_path: Path) -> None:
    stopped("SIGHUP", tmp_path, "stopped by SIGHUP")


@environment("a batch system's SIGTERM")
def _(tmp_path: Path) -> None:
    stopped("SIGTERM", tmp_path, "stopped by SIGTERM")


@environment("nohup: a hangup that was to be ignored")
def _(tmp_path: Path) -> None:
    body = """
    def main():
        os.kill(os.getpid(), signal.SIGHUP)
        return 3
    """
    job(body, tmp_path, 3, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))


@environment("a second and a third Ctrl-C in the middle of the cleanup")
def _(tmp_path: Path) -> None:
    body = """
    def main():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            (here / "cleaned").write_text("yes")
    """
    job(body, tmp_path, 1)
    assert (tmp_path / "cleaned").exists()


@environment("a cleanup that never ends")
def _(tmp_path: Path) -> None:
    body = """
    import threading
    signals.GRACE_S = 0.5

    def main():
        child = subprocess.Popen(["sleep", "600"])
        (here / "child").write_text(str(child.pid))
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            threading.Event().wait()
    """
    assert "killed" in job(body, tmp_path, 1)
    child = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@environment("Ctrl-C while Ray is shutting down")
def _() -> None:
    finished = []
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Stopped, match="Ctrl-C"), stopped_by_signals(), signals_held():
            finished.append(signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert finished
    assert signals._State.watchdog is None


@environment("a thread that asks for results after the end: it must not start a second Ray")
def _(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    import ray._private.auto_init_hook as auto_init

    with connect():
        pass
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: pytest.fail("a second Ray"))
    auto_init.auto_init_ray()


# --- clusters --------------------------------------------------------------------------------------------------------


@environment("RAY_ADDRESS where nothing answers")
def _() -> None:
    with pytest.raises(ClusterError, match=r"nothing answers at RAY_ADDRESS='127.0.0.1:9'; give host:port"):
        connection._join("127.0.0.1:9")


@environment("RAY_ADDRESS of the dashboard")
def _() -> None:
    with pytest.raises(ClusterError, match=r"not the address of a cluster's head.*ray job submit"):
        connection._join("http://127.0.0.1:8265")


@environment("a TMPDIR too long for sockets")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "job-" * 20)
    with pytest.raises(ClusterError, match=r"TMPDIR=/tmp/job.*too long.*at most \d\d bytes.*set RAY_TMPDIR"):
        connection._check_temp_dir()


@environment("a long TMPDIR, and a short RAY_TMPDIR")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/" + "job-" * 20)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    connection._check_temp_dir()


@environment("a home that is not there")
def _(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setitem(os.environ, "RAY_AUTH_TOKEN", "")  # put back afterwards
    del os.environ["RAY_AUTH_TOKEN"]
    connection._use_own_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@environment("a node that leaves as a job starts")
def _(ray_cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray

    there = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: [*there, there[0] | {"NodeID": "1" * 56}])
    info = ClusterInfo("here", started_here=False, cpus=4, gpus=0, nodes=2)
    connection._check_shared(info, [Storage.open(tmp_path)])


@environment("storage on one node's own disk, on a cluster of several nodes")
def _(ray_cluster: None, tmp_path: Path) -> None:
    info = ClusterInfo("here", started_here=False, cpus=4, gpus=0, nodes=2)
    connection._check_shared(info, [Storage.open(tmp_path)])
    assert not any(tmp_path.iterdir())
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with ExitStack() as stack:
        # A path that is this folder in this process alone, as a disk of its own is to a node.
        own = 987
        os.dup2(folder, own)
        stack.callback(os.close, folder)
        stack.callback(os.close, own)
        with pytest.raises(ClusterError, match=r"not the same folder on every node: .* not seen on .*s3://"):
            connection._check_shared(info, [Storage.open(f"/proc/self/fd/{own}")])
    assert not any(tmp_path.iterdir())


def submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.SUBMITTED_JOB, "{}")


STYLIZE = ("--styles", "all", "--input", "photos")


@environment("a relative --output in a submitted job")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.streaming.command import StylizeFlags

    flags = (*STYLIZE, "--storage", "s3://bucket/styles", "--output")
    parse_flags(StylizeFlags, [*flags, "out"])
    submitted(monkeypatch)
    with pytest.raises(ConfigError, match=r"--output: 'out' is relative: in a submitted job .*absolute path"):
        parse_flags(StylizeFlags, [*flags, "out"])
    parse_flags(StylizeFlags, [*flags, "/shared/out"])
    parse_flags(StylizeFlags, [*flags, "~/out"])


@environment("a relative --storage in a submitted job")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.finetuning.styles_file import TrainStylesFlags

    submitted(monkeypatch)
    with pytest.raises(ConfigError, match=r"--storage: './runs' is relative"):
        parse_flags(TrainStylesFlags, ["--storage", "./runs", "--id", "a", "--image", "a.png"])


@environment("a relative storage in the styles file of a submitted job")
def _(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from jobs.finetuning.styles_file import TrainStylesFlags, declared_styles

    file = tmp_path / "styles.yaml"
    file.write_text("storage: runs/x\nstyles: [{id: a, image: a.png}]\n")
    flags = parse_flags(TrainStylesFlags, ["--config", str(file)])
    assert declared_styles(flags).check().storage == "runs/x"
    submitted(monkeypatch)
    with pytest.raises(ConfigError, match=r"styles\.yaml:1 storage: 'runs/x' is relative"):
        declared_styles(flags).check()


@environment("the demo's default storage in a submitted job")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.demo import DemoFlags

    submitted(monkeypatch)
    with pytest.raises(ConfigError, match="--storage: 'runs/demo' is relative"):
        parse_flags(DemoFlags, [])


@environment("a variable that no shell has expanded")
def _() -> None:
    from jobs.finetuning.styles_file import TrainStylesFlags

    for path in ("$HOME/x", "${SCRATCH}/x"):
        with pytest.raises(ConfigError, match="begins with a variable, which only a shell expands"):
            parse_flags(TrainStylesFlags, ["--storage", path, "--id", "a", "--image", "a.png"])


# --- disks and folders -----------------------------------------------------------------------------------------------


def outcome(main: Callable[[], int | None], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code of a job in this process, and what it said on stderr."""
    with pytest.raises(SystemExit) as caught:
        run_job(main)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert isinstance(caught.value.code, int)
    return caught.value.code, " ".join(shown.split())


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@environment("a disk that is full when the record is written")
def _(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        with run_record(Storage.open(tmp_path), job="t", config={}):
            pytest.fail("nothing starts without a record")

    monkeypatch.setattr(os, "fsync", full_disk)
    code, shown = outcome(main, capsys)
    assert code == 1
    assert f"{tmp_path}/runs/" in shown
    assert "No space left on device" in shown


def raising(error: Exception, cause: Exception | None = None) -> Callable[[], None]:
    def main() -> None:
        raise error from cause

    return main


SAFE = "what is recorded as done is safe: free space and give the same command again"


@environment("a disk that fills up in a library")
def _(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/weights.safetensors")
    code, shown = outcome(raising(RuntimeError("cannot save"), full), capsys)
    assert (code, shown) == (1, f"error: no space left at /data/weights.safetensors; {SAFE}")


@environment("a disk quota that is used up")
def _(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = outcome(raising(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/home/x")), capsys)
    assert (code, shown) == (1, f"error: no space left at /home/x; {SAFE}")


@environment("a disk that is full for delta-rs, which has errors of its own")
def _(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = outcome(raising(OSError("Generic LocalFileSystem error: No space left (os error 28)")), capsys)
    assert code == 1
    assert SAFE in shown


@environment("storage below what is a file")
def _(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write: (Not a directory|File exists)"):
        Storage.open(tmp_path / "file" / "storage").check_writable()


@environment("storage where nothing can be made")
def _() -> None:
    with pytest.raises(StorageError, match=r"/proc/.*cannot write"):
        Storage.open("/proc/osasis").check_writable()


@environment("a working folder that was deleted")
def _(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    body = """
    from cluster.commandline.cli import JobFlags, parse_flags

    def main():
        os.rmdir(os.getcwd())
        parse_flags(JobFlags, ["--dry-run"])
        Storage.open("runs").check_writable()
    """
    assert "the current folder does not exist" in job(body, tmp_path, 1, cwd=gone)


# --- what else a process is given ------------------------------------------------------------------------------------


@environment("no git on the PATH")
def _(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with run_record(Storage.open(tmp_path), job="t", config={}) as record:
        assert record.git_commit is None


@environment("arguments that are not UTF-8")
def _(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["job.py", os.fsdecode(b"caf\xe9")])
    with run_record(Storage.open(tmp_path), job="t", config={"input": os.fsdecode(b"caf\xe9")}):
        pass
    record = record_of(tmp_path)
    assert (record.outcome, record.argv[1], record.config["input"]) == ("done", r"caf\xe9", r"caf\xe9")


@environment("a secret of the environment in an error message")
def _(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-value")
    code, shown = outcome(raising(StorageError("signature of s3cr3t-value refused")), capsys)
    assert (code, shown) == (1, "error: signature of [redacted] refused")
