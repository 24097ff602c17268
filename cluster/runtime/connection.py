"""One way to connect to Ray, whoever started it.

- inside ``ray job submit``: the job's own cluster, with the working directory and environment the job was given;
- with ``RAY_ADDRESS`` (``host:port`` or ``auto``): that cluster, to whose nodes this checkout travels;
- otherwise: a Ray of its own on this machine, stopped at the end.

Credentials never travel: each node takes those of its own environment, profile or role. The S3 endpoint and region,
which are no secrets, are handed on to a cluster joined by ``RAY_ADDRESS``.
"""

import logging
import os
import re
import secrets
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.runtime.loss import is_lost, watched
from cluster.runtime.native_output import without_lines
from cluster.runtime.signals import signals_held, stopped_by_signals
from cluster.storage import Storage

_ROOT = Path(__file__).resolve().parents[2]
_EXCLUDES = ["/.git", "/.venv", "/runs", "/build", "/dist", "/.*_cache", "/.hypothesis", "*.egg-info", "__pycache__"]
_FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_REQUEST_PAYER")
_OBJECT_STORE_BYTES = 1 << 30
_LONGEST_TEMP_DIR = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Ray's sockets lie below the temporary folder, and a socket's path has at most 107 bytes."""
_CHATTER = {
    "ray.data._internal": logging.WARNING,  # each execution's end
    "ray.data._internal.progress": logging.ERROR,  # that its own progress bars are off
    "ray.data._internal.stats": logging.ERROR,  # tracebacks of its threads where a run is stopped
    "ray.train": logging.WARNING,
}
"""Loggers with levels of their own, whose lines are of no use to who runs a job."""
_NOT_FOR_USERS = re.compile(
    "worker processes have been started on node|has constructor arguments in the object store|^Raylet is terminated|"
    "Failed to push error to driver"
)
"""Lines of the raylet, which come whatever ``log_to_driver`` is: actors that wait for storage more than they compute
take parts of a CPU, so that there are more of them than Ray expects; the last page of the log of a raylet that died.
And of the driver's native code: about what Ray Data itself hands to its actors, and about a head that is gone."""
SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it (the name is literal) for the driver of a submitted job


class ClusterError(Exception):
    """There is no such cluster, or it refuses access; the message says what to change."""


@dataclass(frozen=True)
class ClusterInfo:
    """What was connected to. ``started_here``: this process started that Ray, and stops it."""

    address: str
    started_here: bool
    cpus: float
    gpus: float
    nodes: int


@contextmanager
def connect(
    num_cpus: int | None = None, *, shared: Sequence[Storage] = (), look_only: bool = False
) -> Iterator[ClusterInfo]:
    """Joins or starts Ray; disconnects, or stops what it started, at the end.

    A Ray that this process is already connected to is used and left as it is. ``num_cpus`` counts for a Ray started
    here only. ``shared``: storage that workers use; every node must see the same files there. ``look_only``: no code
    is sent to a cluster. While connected, signals raise :class:`~cluster.runtime.signals.Stopped` in the main thread.

    Raises:
        ClusterError: the address is wrong, nothing answers, the token is refused, or ``shared`` is not.
        RayLost: Ray's processes have gone.
    """
    import ray
    import ray._private.auto_init_hook as auto_init

    # Ray starts a cluster by itself at any call that needs one. After a Ctrl-C, a thread that still waited for results
    # started a second Ray in that way.
    auto_init.enable_auto_connect = False
    if ray.is_initialized():
        info = _info(started_here=False)
        _check_shared(info, shared)
        yield info
        return
    named = os.environ.get("RAY_ADDRESS")
    address = None if named == "local" else named
    with _quiet_start():
        _join(address, look_only) if address else _start(num_cpus)
    try:
        node = ray._private.worker.global_worker.node
        with stopped_by_signals(), without_lines(_NOT_FOR_USERS), watched(node, started_here=not address):
            info = _info(started_here=not address)
            _check_shared(info, shared)
            yield info
    finally:
        if not is_lost():
            with signals_held():  # an interrupted shutdown leaves Ray's processes behind
                ray.shutdown()


def _start(num_cpus: int | None) -> None:
    import ray

    _check_temp_dir()
    _use_own_token()
    ray.init(
        address="local",  # not "auto", which would join any cluster once started on this machine
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _join(address: str, look_only: bool = False) -> None:
    import ray

    if "://" in address:
        raise ClusterError(
            f"RAY_ADDRESS={address!r} is not the address of a cluster's head: give host:port (often port 6379) on a "
            "machine of the cluster, or submit from outside with `ray job submit --working-dir . -- python jobs/…`"
        )
    _check_answers(address)
    try:
        ray.init(runtime_env=None if look_only else _runtime_env(), log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"cannot join the Ray cluster at RAY_ADDRESS={address!r}: {str(error).strip().splitlines()[0]}; check the "
            "address, that this machine is a node of the cluster, and, where it asks for a token, RAY_AUTH_MODE=token "
            "with RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error


def _check_temp_dir() -> None:
    """Ray itself fails with "AF_UNIX path length cannot exceed 107 bytes"."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    folder = os.environ.get(name) or tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_TEMP_DIR:
        raise ClusterError(
            f"{name}={folder} is too long for Ray's sockets (at most {_LONGEST_TEMP_DIR} bytes): set RAY_TMPDIR to a "
            "shorter folder, such as /tmp"
        )


def _check_shared(info: ClusterInfo, shared: Sequence[Storage]) -> None:
    """Raises ClusterError unless a file that is written here is read on every node.

    A path of one node's own disk would be found out late: results of the others would be lost with them.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    local = [storage for storage in shared if storage.is_local]
    if info.nodes < 2 or not local:
        return

    @ray.remote(num_cpus=0, max_retries=0)
    def sees(storage: Storage, name: str) -> bool:
        return storage.exists(name)

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    for storage in local:
        probe = f".osasis-probe-{uuid.uuid4().hex}"
        storage.write_bytes(probe, b"")
        try:
            on = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
            asked = [sees.options(scheduling_strategy=s).remote(storage, probe) for s in on]
            seen = [_answer(reference) for reference in asked]
        except ray.exceptions.GetTimeoutError as error:
            raise ClusterError(f"a node of the cluster does not run tasks, so {storage} cannot be looked at") from error
        finally:
            storage.delete(probe)
        if blind := [node["NodeManagerAddress"] for node, yes in zip(nodes, seen, strict=True) if not yes]:
            raise ClusterError(
                f"{storage} is not the same folder on every node: what is written here is not seen on "
                f"{', '.join(blind)}; give a folder that all nodes mount, or s3://bucket/prefix"
            )


def _answer(reference: Any) -> bool:
    """Of a node that was asked whether it sees a file; yes where it has left meanwhile, or is about to."""
    import ray

    try:
        return bool(ray.get(reference, timeout=300))
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError):
        return True


def _check_answers(address: str) -> None:
    """Asks first, since Ray itself tries for minutes."""
    if address == "auto":  # Ray looks for a cluster on this machine
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"nothing answers at RAY_ADDRESS={address!r}; give host:port of the cluster's head, often port 6379, "
            "or unset it to start a Ray of its own here"
        ) from error


def _runtime_env() -> dict[str, Any] | None:
    """The runtime environment of a joined cluster's workers; None in a submitted job, which has its submitter's."""
    if SUBMITTED_JOB in os.environ:
        return None
    env: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in _FORWARDED if name in os.environ}}
    if (_ROOT / "pyproject.toml").exists():  # an installed package is on every node already, by the same image
        env |= {"working_dir": str(_ROOT), "excludes": _EXCLUDES}
    return env


def _use_own_token() -> None:
    """Gives a Ray of our own a token of its own.

    Ray would otherwise write one to the home directory, which fails where that is read-only and changes how every later
    cluster of this user asks for tokens. ``RAY_AUTH_MODE`` stays unset: Ray turns tokens on by itself in ``init``, but
    has read its settings at import and would not see the variable.
    """
    if "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _info(started_here: bool) -> ClusterInfo:
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return ClusterInfo(
        address=ray.get_runtime_context().gcs_address,
        started_here=started_here,
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        nodes=sum(node["Alive"] for node in ray.nodes()),  # type: ignore[no-untyped-call]
    )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Errors alone while Ray starts (it announces the start and its token), warnings afterwards."""
    from ray._private import ray_logging

    for name, level in _CHATTER.items():
        logging.getLogger(name).setLevel(level)
    deduplicator = ray_logging.stdout_deduplicator  # as RAY_DEDUP_LOGS_SKIP_REGEX, which Ray reads when it is imported
    deduplicator.skip_re = deduplicator.skip_re or _NOT_FOR_USERS
    logger = logging.getLogger("ray")
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(logging.WARNING)
