"""One job at a time per place: a lease in storage that its holder renews, and that lapses where it is not renewed.

A lease is a file ``leases/<name>/<generation>.json`` below a storage. It is taken by a conditional write, which exactly
one of several writers wins; the highest generation holds. No two clocks are compared: a lease has lapsed when the
*waiting* process has seen no renewal for :data:`TTL_S` by its own monotonic clock, and the holder gives up by its own.
A holder on this machine whose process is gone is replaced at once.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.storage import NotFound, Storage, StorageError

TTL_S = 30.0
"""Seconds without renewal after which a lease has lapsed. The holder renews three times as often."""

_GRACE_S = 5.0
"""Seconds that a process must go on living before its lease counts as held: workers outlive a killed driver briefly."""

_POLL_S = 1.0


class LeaseHolder(BaseModel):
    """Who holds a lease. ``since`` is for people; nothing is decided by it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run_id: str
    job: str
    host: str
    pid: int
    process: str
    """Identity of the process on its host: boot id, pid namespace and start time, since pids are used again."""
    since: datetime
    renewals: int = 0

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.job}) on {self.host}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class LeaseHeld(Exception):
    """Another job holds the lease."""

    def __init__(self, place: str, holder: LeaseHolder) -> None:
        self.holder = holder
        super().__init__(
            f"{place} is in use by {holder}; let it finish, or give --if-busy wait to start when it has ended"
        )


class LeaseLost(Exception):
    """The lease could not be renewed in time, so that another job may hold it now."""


@dataclass
class Lease:
    """A lease that this process holds; :meth:`check` before each write that nobody else may make meanwhile."""

    storage: Storage
    name: str
    generation: int
    holder: LeaseHolder
    renewed: float
    """When it was last renewed, by ``time.monotonic``."""

    def check(self) -> None:
        """Raises LeaseLost where it has lapsed: the job must stop writing."""
        if time.monotonic() - self.renewed > TTL_S:
            raise LeaseLost(f"{self.storage.child_uri(self.name)}: the lease was not renewed for {TTL_S:.0f} s")

    def renew(self) -> None:
        """Say that the holder lives. Raises LeaseLost where that comes too late, StorageError where it fails."""
        self.check()
        started = time.monotonic()
        self.holder = self.holder.model_copy(update={"renewals": self.holder.renewals + 1})
        self.storage.write_bytes(_file(self.name, self.generation), self.holder.model_dump_json().encode())
        if _highest(self.storage, self.name) != self.generation:
            self.renewed = float("-inf")
            self.check()
        self.renewed = started

    def release(self) -> None:
        """Remove it, unless it is another's by now."""
        if time.monotonic() - self.renewed <= TTL_S:
            self.storage.delete(_file(self.name, self.generation))


@contextmanager
def lease(
    storage: Storage,
    name: str,
    *,
    run_id: str,
    job: str,
    wait: bool,
    on_wait: Callable[[LeaseHolder], object] = lambda holder: None,
) -> Iterator[Lease]:
    """Hold the lease ``name`` of ``storage`` while the body runs, renewing it in a thread.

    Args:
        wait: wait for another holder instead of raising; ``on_wait`` is called once for each holder waited for.

    Raises:
        LeaseHeld: another job holds it, and ``wait`` is not set.
        StorageError: storage failed.
    """
    holder = LeaseHolder(
        run_id=run_id, job=job, host=platform.node(), pid=os.getpid(), process=process_identity(os.getpid()),
        since=datetime.now(UTC),
    )  # fmt: skip
    held = _acquire(storage, name, holder, wait, on_wait)
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(held, stop), name=f"lease-{name}", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        stop.set()
        thread.join(timeout=TTL_S)
        with suppress(StorageError):  # it lapses; what stopped the body is what to tell
            held.release()


def forget(storage: Storage, name: str) -> None:
    """Remove what the lease ``name`` left, such as that of a holder that was killed: what it stood for is over.

    Raises:
        StorageError: storage failed.
    """
    for generation in _generations(storage, name):
        storage.delete(_file(name, generation))


def process_identity(pid: int) -> str:
    """Tells a process from a later one of the same pid; empty where there is none or the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The fields follow the command's name, which is in parentheses and may hold spaces; start time is the 20th.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        namespace = os.stat("/proc/self/ns/pid").st_ino  # containers of one machine count pids of their own
    except (OSError, IndexError):
        return ""
    return f"{boot}:{namespace}:{started}"


def _acquire(
    storage: Storage, name: str, holder: LeaseHolder, wait: bool, on_wait: Callable[[LeaseHolder], object]
) -> Lease:
    generation, current, seen_at, told = 0, None, 0.0, 0
    while True:
        before = generation, current
        generation = _highest(storage, name)
        current = _read(storage, name, generation) if generation else None
        if (generation, current) != before:
            seen_at = time.monotonic()
        lapsed = time.monotonic() - seen_at > TTL_S
        if not generation or lapsed or (current and _process_of(current) == "gone"):
            if taken := _take(storage, name, generation + 1, holder):
                return taken
            continue
        # A file alone does not say whether its holder lives: a renewal does, or its process on this machine.
        renewed = current and before[1] and generation == before[0] and current != before[1]
        lives = time.monotonic() - seen_at > _GRACE_S and current and _process_of(current) == "alive"
        if current and not wait and (renewed or lives):
            raise LeaseHeld(storage.uri, current)
        if current and wait and told != generation:
            told = generation
            on_wait(current)
        time.sleep(_POLL_S)


def _take(storage: Storage, name: str, generation: int, holder: LeaseHolder) -> Lease | None:
    """None where another was faster."""
    started = time.monotonic()
    if not storage.write_bytes(_file(name, generation), holder.model_dump_json().encode(), if_absent=True):
        return None
    # Who listed before an earlier lease was removed may have written a lower generation.
    if _highest(storage, name) != generation:
        storage.delete(_file(name, generation))
        return None
    for old in _generations(storage, name):
        if old < generation:
            storage.delete(_file(name, old))
    return Lease(storage, name, generation, holder, started)


def _keep(held: Lease, stop: threading.Event) -> None:
    """Renew until told to stop. Storage that fails is asked again later; :meth:`Lease.check` has the last word."""
    while not stop.wait(TTL_S / 3):
        try:
            held.renew()
        except StorageError:
            continue
        except LeaseLost:
            return


def _process_of(holder: LeaseHolder) -> Literal["alive", "gone", "unknown"]:
    """What this machine knows of the holder's process; "unknown" of one on another machine or in another container."""
    own, theirs = process_identity(os.getpid()).split(":"), holder.process.split(":")
    if holder.host != platform.node() or not own[0] or own[:2] != theirs[:2]:
        return "unknown"
    return "alive" if process_identity(holder.pid) == holder.process else "gone"


def _file(name: str, generation: int) -> str:
    return f"leases/{name}/{generation:010d}.json"


def _generations(storage: Storage, name: str) -> list[int]:
    return sorted(
        int(file[:10]) for file in storage.list_files(f"leases/{name}", recursive=False) if file[:10].isdigit()
    )


def _highest(storage: Storage, name: str) -> int:
    """0: none."""
    return max(_generations(storage, name), default=0)


def _read(storage: Storage, name: str, generation: int) -> LeaseHolder | None:
    """None where it is gone or damaged."""
    try:
        return LeaseHolder.model_validate_json(storage.read_bytes(_file(name, generation)))
    except (NotFound, ValidationError):
        return None
