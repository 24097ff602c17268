"""One way to connect to Ray, whoever started it.

- inside ``ray job submit``: the job's own cluster, with the working directory and environment the job was given;
- with ``RAY_ADDRESS`` (``host:port`` or ``auto``): that cluster, to whose nodes this checkout travels;
- otherwise: a Ray of its own on this machine, stopped at the end.

Credentials never travel: each node takes those of its own environment, profile or role. The S3 endpoint and region,
which are no secrets, are handed on to a cluster joined by ``RAY_ADDRESS``.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Never

_ROOT = Path(__file__).resolve().parents[2]
_EXCLUDES = ["/.git", "/.venv", "/runs", "/build", "/dist", "/.*_cache", "/.hypothesis", "*.egg-info", "__pycache__"]
_FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
_OBJECT_STORE_BYTES = 1 << 30
_SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it (the name is literal) for the driver of a submitted job


class ClusterError(Exception):
    """There is no such cluster, or it refuses access; the message says what to change."""


class Stopped(KeyboardInterrupt):
    """SIGTERM, as ``ray job stop`` sends it; unwinds like Ctrl-C, so that everything closes and is recorded."""


@dataclass(frozen=True)
class ClusterInfo:
    """What was connected to. ``started_here``: this process started that Ray, and stops it."""

    address: str
    started_here: bool
    cpus: float
    gpus: float
    nodes: int


@contextmanager
def connect(num_cpus: int | None = None) -> Iterator[ClusterInfo]:
    """Joins or starts Ray; disconnects, or stops what it started, at the end.

    A Ray that this process is already connected to is used and left as it is. ``num_cpus`` counts for a Ray started
    here only. While connected, SIGTERM raises :class:`Stopped` in the main thread.

    Raises:
        ClusterError: the address is wrong, nothing answers, or the token is refused.
    """
    import ray

    if ray.is_initialized():
        yield _info(started_here=False)
        return
    named = os.environ.get("RAY_ADDRESS")
    address = None if named == "local" else named
    with _warnings_only():
        _join(address) if address else _start(num_cpus)
    try:
        with _sigterm_raises():
            yield _info(started_here=not address)
    finally:
        ray.shutdown()


def _start(num_cpus: int | None) -> None:
    import ray

    _use_own_token()
    ray.init(
        address="local",  # not "auto", which would join any cluster once started on this machine
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )


def _join(address: str) -> None:
    import ray

    if "://" in address:
        raise ClusterError(
            f"RAY_ADDRESS={address!r} is not the address of a cluster's head: give host:port (often port 6379) on a "
            "machine of the cluster, or submit from outside with `ray job submit --working-dir . -- python jobs/…`"
        )
    _check_answers(address)
    try:
        ray.init(runtime_env=_runtime_env(), log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"cannot join the Ray cluster at RAY_ADDRESS={address!r}: {str(error).strip().splitlines()[0]}; check the "
            "address, that this machine is a node of the cluster, and, where it asks for a token, RAY_AUTH_MODE=token "
            "with RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error


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
    if _SUBMITTED_JOB in os.environ:
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
def _sigterm_raises() -> Iterator[None]:
    """Ray installs a handler of its own in ``init``, so ours comes after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> Never:
        raise Stopped("stopped by SIGTERM")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        with suppress(TypeError):  # None: the previous handler was not installed from Python
            signal.signal(signal.SIGTERM, previous)


@contextmanager
def _warnings_only() -> Iterator[None]:
    """Ray announces a start in several lines, which a job's own first line says better."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
