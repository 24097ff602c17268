"""One holder at a time, whatever happens to the others; on local disk and on S3."""

import os
import platform
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest

from cluster.runtime import lease as lease_module
from cluster.runtime.lease import Lease, LeaseHeld, LeaseHolder, LeaseLost, lease, process_identity
from cluster.storage import Storage


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TTL_S", 1.0)
    monkeypatch.setattr(lease_module, "_GRACE_S", 0.1)
    monkeypatch.setattr(lease_module, "_POLL_S", 0.02)


def holder(host: str = "elsewhere", process: str = "", renewals: int = 0) -> LeaseHolder:
    return LeaseHolder(
        run_id="20261125T000000Z-1", job="stylize", host=host, pid=1, process=process, since=datetime.now(UTC),
        renewals=renewals,
    )  # fmt: skip


def write(storage: Storage, value: LeaseHolder, generation: int = 1) -> None:
    storage.write_bytes(f"leases/out/{generation:010d}.json", value.model_dump_json().encode())


def test_the_second_job_is_told_who_holds_it(storage: Storage) -> None:
    with (
        lease(storage, "out", run_id="first", job="stylize", wait=False),
        pytest.raises(LeaseHeld, match=rf"run first \(stylize\) on {platform.node()}, since 20.*--if-busy wait"),
        lease(storage, "out", run_id="second", job="stylize", wait=False),
    ):
        pass
    assert storage.list_files("leases") == [], "a lease is left behind"


def test_one_at_a_time_of_many_that_wait(storage: Storage) -> None:
    inside: list[str] = []
    most: list[int] = []

    def work(name: str) -> None:
        with lease(storage, "out", run_id=name, job="stylize", wait=True) as held:
            inside.append(name)
            most.append(len(inside))
            held.renew()
            inside.remove(name)

    threads = [threading.Thread(target=work, args=(f"run-{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 6


def test_a_job_of_this_machine_that_was_killed_is_replaced_at_once(storage: Storage) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(gone.pid)
    gone.kill()
    gone.wait()
    write(storage, holder(platform.node(), identity).model_copy(update={"pid": gone.pid}))
    start = time.monotonic()
    with lease(storage, "out", run_id="next", job="stylize", wait=False) as held:
        assert held.generation == 2
        assert time.monotonic() - start < lease_module.TTL_S
    assert storage.list_files("leases") == []


def test_a_pid_used_again_by_another_process_is_not_the_holder() -> None:
    identity = process_identity(os.getpid())
    assert identity == process_identity(os.getpid())
    other = holder(platform.node(), identity.rpartition(":")[0] + ":1").model_copy(update={"pid": os.getpid()})
    assert lease_module._process_of(other) == "gone"
    assert lease_module._process_of(other.model_copy(update={"process": identity})) == "alive"
    assert lease_module._process_of(other.model_copy(update={"host": "elsewhere"})) == "unknown"
    assert lease_module._process_of(other.model_copy(update={"process": "another-boot:1:1"})) == "unknown"


@pytest.mark.parametrize(
    "content", [holder().model_dump_json().encode(), b"", b"{"], ids=["silent", "empty", "damaged"]
)
def test_a_lease_that_nobody_renews_lapses(storage: Storage, content: bytes) -> None:
    storage.write_bytes("leases/out/0000000007.json", content)
    start = time.monotonic()
    with lease(storage, "out", run_id="next", job="stylize", wait=False) as held:
        assert held.generation == 8
        assert time.monotonic() - start >= lease_module.TTL_S


def test_a_renewal_seen_from_another_machine_says_that_it_is_held(storage: Storage) -> None:
    write(storage, holder())
    stop = threading.Event()

    def renew() -> None:
        count = 0
        while not stop.wait(0.1):
            count += 1
            write(storage, holder(renewals=count))

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(LeaseHeld, match="on elsewhere"),
            lease(storage, "out", run_id="b", job="stylize", wait=False),
        ):
            pass
    finally:
        stop.set()
        thread.join()


def test_the_clock_of_the_holder_does_not_matter(storage: Storage) -> None:
    write(storage, holder().model_copy(update={"since": datetime(2090, 1, 1, tzinfo=UTC)}))
    with lease(storage, "out", run_id="next", job="stylize", wait=False) as held:
        assert held.generation == 2


def test_a_holder_that_could_not_renew_in_time_stops_writing(storage: Storage) -> None:
    stale = Lease(storage, "out", 1, holder(), time.monotonic() - 2)
    write(storage, stale.holder)
    with lease(storage, "out", run_id="next", job="stylize", wait=False):
        with pytest.raises(LeaseLost):
            stale.check()
        with pytest.raises(LeaseLost):
            stale.renew()
        stale.release()
        assert storage.list_files("leases/out") == ["0000000002.json"], "it removed the lease of another"


def test_a_holder_that_was_overtaken_learns_it_when_it_renews(storage: Storage) -> None:
    overtaken = Lease(storage, "out", 1, holder(), time.monotonic())
    write(storage, holder(), generation=2)
    with pytest.raises(LeaseLost):
        overtaken.renew()
    with pytest.raises(LeaseLost):
        overtaken.check()


def test_waiting_names_each_holder_once(storage: Storage) -> None:
    told: list[str] = []
    write(storage, holder())
    with lease(storage, "out", run_id="b", job="stylize", wait=True, on_wait=lambda other: told.append(other.host)):
        pass
    assert told == ["elsewhere"]
