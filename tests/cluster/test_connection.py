"""Connecting to Ray, what it holds, and the command lines of jobs."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ray
from pydantic import BaseModel, ConfigDict, Field

from cluster.commandline.cli import (
    ConfigError,
    ExitCode,
    JobFlags,
    Problem,
    Uri,
    check,
    load_yaml,
    parse_flags,
    read_yaml,
    run_job,
)
from cluster.runtime import connection
from cluster.runtime.connection import ClusterError, ClusterInfo, connect
from cluster.runtime.resources import Resources, capacity, nodes, warn_of_unused
from cluster.runtime.signals import Stopped, stopped_by_signals
from cluster.runtime.waiting import room_for
from cluster.storage import StorageError

_ROOT = Path(__file__).parents[2]


def test_a_connected_ray_is_used_and_left(ray_cluster: None) -> None:
    import ray

    with connect() as info:
        assert (info.cpus, info.nodes, info.started_here) == (4.0, 1, False)
    assert ray.is_initialized()


def test_what_the_raylet_says_and_nobody_can_act_on_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from ray._private.worker import print_to_stdstream

    with connection._quiet_start():
        pass
    for line in (
        "WARNING: 8 PYTHON worker processes have been started on node: 1 with address: 127.0.0.1.",
        "a worker ran out of memory",
    ):
        print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].endswith("a worker ran out of memory")


def test_capacity_counts_whole_workers(ray_cluster: None) -> None:
    there = nodes()
    assert capacity(Resources(cpus=1), there) == 4
    assert capacity(Resources(cpus=1.5), there) == 2
    assert capacity(Resources(cpus=0.1), there) == 40
    with pytest.raises(ValueError, match="some CPU or GPU"):
        capacity(Resources(cpus=0), there)


@pytest.mark.parametrize(("started_here", "wait"), [(True, 900), (False, 0)])
def test_what_does_not_fit_is_refused_at_once_where_nothing_is_waited_for(
    ray_cluster: None, started_here: bool, wait: int
) -> None:
    cluster = ClusterInfo("here", started_here, cpus=4, gpus=0, nodes=1)
    with pytest.raises(ClusterError, match=r"needs 64 CPU and 1 GPU, which no node .*4 CPU.*ask for less"):
        room_for(lambda there: Resources(cpus=64, gpus=1), cluster, timedelta(seconds=wait))


def test_what_does_not_fit_is_asked_for_while_it_is_waited_for(ray_cluster: None) -> None:
    cluster, asked = ClusterInfo("here", False, cpus=4, gpus=0, nodes=1), []

    def settle(there: object) -> Resources:
        groups = ray.util.placement_group_table().values()
        asked.append([group["bundles"][0] for group in groups if group["state"] == "PENDING"])
        return Resources(cpus=2) if asked[-1] else Resources(cpus=64, gpus=1)

    assert room_for(settle, cluster, timedelta(minutes=5), wanted=3) == Resources(cpus=2)
    assert asked == [[], [{"CPU": 64.0, "GPU": 1.0}] * 3]
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    assert states <= {"REMOVED"}, "nothing is asked for any more"


def test_gpus_that_are_left_unused_are_told(caplog: pytest.LogCaptureFixture) -> None:
    there = [{"Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Resources": {"CPU": 8.0}}]
    warn_of_unused(Resources(cpus=1, gpus=0.5), there)
    assert not caplog.records
    warn_of_unused(Resources(cpus=1), there)
    assert caplog.messages == ["the cluster has GPUs (2), and this job computes on CPUs: --gpus-per-worker 1 uses them"]


def test_workers_reach_the_storage(ray_cluster: None, storage: Any) -> None:
    import ray

    storage.write_bytes("from-driver", b"1")

    @ray.remote
    def copy(place: Any) -> bytes:
        data: bytes = place.read_bytes("from-driver")
        place.write_bytes("from-worker", data + b"2")
        return data

    assert ray.get(copy.remote(storage)) == b"1"
    assert storage.read_bytes("from-worker") == b"12"


_STANDALONE = """
import os, signal, sys, time
import ray, ray.data, ray.train  # as jobs do, before connecting
from cluster.runtime.connection import connect
from cluster.runtime.signals import Stopped
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
try:
    with connect(num_cpus=1) as info, run_record(Storage.open(sys.argv[1]), job="t", config={}):
        assert info.started_here and info.cpus == 1, info
        assert ray.get(ray.remote(lambda: __import__("cluster.storage").storage.TEMP_PREFIX).remote())
        print("up", flush=True)
        time.sleep(60)
except Stopped:
    print("stopped", ray.is_initialized())
"""


def test_a_job_of_its_own_starts_ray_and_stops_orderly(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", _STANDALONE, str(tmp_path / "storage")],
        cwd=_ROOT, env=environment | {"HOME": str(home)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (output, process.returncode) == ("stopped False\n", 0)
    (record,) = (tmp_path / "storage" / "runs").iterdir()
    assert '"outcome": "stopped"' in record.read_text()
    assert not (home / ".ray" / "auth_token").exists()


def test_the_signal_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), stopped_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_addresses_of_other_services_are_explained(address: str) -> None:
    with pytest.raises(ClusterError, match="host:port"):
        connection._join(address)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1", "no port:x", "127.0.0.1:99999999"])
def test_an_address_where_nothing_answers_is_reported_at_once(address: str) -> None:
    with pytest.raises(ClusterError, match="nothing answers"):
        connection._join(address)


def test_a_joined_cluster_gets_code_and_endpoint_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3:1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    env = connection._runtime_env()
    assert env
    assert env["working_dir"] == str(_ROOT)
    assert env["env_vars"]["AWS_ENDPOINT_URL"] == "http://s3:1"
    assert "secret" not in str(env)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert connection._runtime_env() is None


class Train(BaseModel):
    model_config = ConfigDict(extra="forbid")

    iterations: int = Field(200, gt=0)


class Style(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern="^[a-z]+$")
    train: Train = Train()


class Styles(BaseModel):
    model_config = ConfigDict(extra="forbid")

    base: str
    storage: str = "./runs"
    styles: list[Style] = Field(min_length=1)


_YAML = """\
base: mini64
storag: ./runs
styles:
  - id: monet
    train:
      iterations: -1
  - id: Bad Id
    colour: red
  - train: {iterations: many}
"""


def test_every_problem_of_a_file_is_placed(tmp_path: Path) -> None:
    file = tmp_path / "styles.yaml"
    file.write_text(_YAML)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, Styles)
    places = [problem.place.removeprefix(str(file)) for problem in caught.value.problems]
    assert sorted(places) == [
        ":2 storag",
        ":6 styles[0].train.iterations",
        ":7 styles[1].id",
        ":8 styles[1].colour",
        ":9 styles[2].id",
        ":9 styles[2].train.iterations",
    ]
    assert "did you mean 'storage'?" in str(caught.value)
    assert "styles[2].id: missing" in str(caught.value)


def test_flags_override_the_file_and_are_named_in_errors(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("base: a\nstyles: [{id: monet}]\n")
    assert load_yaml(file, Styles, {"base": "b", "storage": None}).base == "b"
    with pytest.raises(ConfigError, match=r"^--storage: must be text, not 3"):
        load_yaml(file, Styles, {"storage": 3})
    parsed = read_yaml(file)
    assert check(parsed, Styles).base == "a"
    assert str(parsed.problem(("styles", 0, "image"), "no such file")) == f"{file}:2 styles[0].image: no such file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", ":1: not valid YAML"),
        ("- a\n- b", "not a mapping"),
        ("", "not a mapping"),
        ("base: a\nbase: b", ":2 base: key given twice"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: \0", "not valid YAML"),
    ],
)
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(file, Styles)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml.*no such file"):
        load_yaml(tmp_path / "none.yaml", Styles)


class Place(JobFlags):
    """Where everything is."""

    storage: Uri = Field(description="Where everything is kept.")
    path: str | None = Field(None, description="Must not be taken from PATH.")


class Flags(Place):
    """Stylizes photographs."""

    batch_size: int = Field(8, gt=0, description="Images at once.")


def test_flags_are_kebab_case_and_ignore_the_environment() -> None:
    flags = parse_flags(Flags, ["--storage", "x", "--batch-size", "2", "--dry-run"])
    assert (flags.storage, flags.batch_size, flags.dry_run, flags.path) == ("x", 2, True, None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--storage: missing"),
        (["--storage", "x", "--batch-size", "many"], "--batch-size: must be a whole number, not 'many'"),
        (["--storage", "x", "--bach-size", "2"], "--bach-size"),
    ],
)
def test_bad_flags_are_configuration_errors(args: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_flags(Flags, args)


def test_every_problem_of_a_command_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_flags(Flags, ["--batch-size", "many", "--bach-size=2", "--pth", "x", "--dry-run", "stray"])
    assert str(caught.value).splitlines() == [
        "--bach-size: no such flag (did you mean '--batch-size'?)",
        "--pth: no such flag (did you mean '--path'?)",
        "--storage: missing",
        "--batch-size: must be a whole number, not 'many'",
    ]
    with pytest.raises(ConfigError, match="command line: unexpected 'stray'"):
        parse_flags(Flags, ["stray", "--storage", "x"])


def test_help_shows_what_is_required_then_groups_by_the_class_that_declares_a_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/osasis-test"])
    with pytest.raises(SystemExit) as caught:
        parse_flags(Flags, ["--help"])
    assert caught.value.code == 0
    assert (
        capsys.readouterr().out.partition("\n\nURI is")[0]
        == """\
usage: osasis-test --storage URI [flags]

Stylizes photographs.

required:
  --storage URI        Where everything is kept.

options:
  --batch-size N       Images at once. (default: 8)

place:
  Where everything is.

  --path TEXT          Must not be taken from PATH.

general:
  --dry-run            Print the resolved plan and change nothing.
  --log-format FORMAT  Of log lines: text or json. (default: text)
  -h, --help           Print this help."""
    )


@pytest.mark.parametrize(
    ("raised", "code", "shown"),
    [
        (None, 0, ""),
        (ConfigError([Problem("a.yaml:1 x", "unknown key"), Problem("--y", "missing")]), 2, "a.yaml:1 x: unknown key"),
        (ClusterError("nobody there"), 2, "nobody there"),
        (StorageError("[disk] full"), 1, "[disk] full"),
        (LookupError("expected one"), 1, "error: expected one"),
        (ValueError("surprise"), 1, "Traceback"),
        (Stopped("stopped by SIGTERM"), 1, "stopped by SIGTERM"),
    ],
)
def test_exit_codes(raised: BaseException | None, code: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        if raised:
            raise raised
        return ExitCode.DONE

    with pytest.raises(SystemExit) as caught:
        run_job(main, expected=(LookupError,))
    assert caught.value.code == code
    assert shown in capsys.readouterr().err


def test_recorded_failures_have_their_own_exit_code() -> None:
    with pytest.raises(SystemExit) as caught:
        run_job(lambda: ExitCode.RECORDED_FAILURES)
    assert caught.value.code == 3
