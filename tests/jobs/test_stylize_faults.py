"""Storage that fails in the middle of a stylize command: a sentence, rows undecided, and the same command finishes."""

import os
from collections.abc import Callable, Iterator

import pytest

from cluster.runtime import lease
from cluster.storage import Storage, aws
from tests.support.faulty_s3 import Action, FaultyS3, Request, faulty_s3
from tests.support.in_process import without_cluster
from tests.support.jobs_run import call_job, run_job
from tests.support.s3_server import S3
from tests.support.stylize_case import Case


@pytest.fixture(scope="module")
def proxy(s3: S3) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint) as proxy:
        yield proxy


def from_the_first_input_on(action: Action) -> Callable[[Request], Action]:
    """Until then all is well: what is checked before work finds nothing."""
    begun: list[bool] = []

    def plan(request: Request) -> Action:
        if begun or (request.method == "GET" and request.path.endswith(".png")):
            begun.append(True)
            return action
        return "pass"

    return plan


def of_pictures(request: Request) -> Action:
    return "denied" if request.method == "PUT" and "/out/images/" in request.path else "pass"


def of_the_manifest(request: Request) -> Action:
    return "denied" if request.method == "PUT" and "/out/manifest/_delta_log/" in request.path else "pass"


FAULTS: dict[str, tuple[Callable[[], Callable[[Request], Action]], str]] = {
    "credentials that expire": (lambda: from_the_first_input_on("expired"), "expired; renew them"),
    "a bucket that goes": (lambda: from_the_first_input_on("no-bucket"), "no such bucket; create it"),
    "pictures that may not be written": (lambda: of_pictures, "access denied; check the credentials"),
    "a server that stays overloaded": (lambda: from_the_first_input_on("503"), "overloaded; give the same command"),
    "connections that are reset": (lambda: from_the_first_input_on("reset"), "no answer; check AWS_ENDPOINT_URL"),
    "a manifest that may not be written": (lambda: of_the_manifest, "access denied; check the credentials"),
}


@pytest.fixture
def case(s3: S3, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two pictures and a style on S3, reached through the proxy."""
    proxy.follow(lambda request: "pass")
    for name, value in {"ENDPOINT_URL": proxy.endpoint, "MAX_ATTEMPTS": "2"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    aws.forget()
    case = Case.make(Storage.open(s3.bucket_uri()), tmp_path_factory.mktemp("case"), styles=1)
    case.add_pictures(2)
    case.flags["workers"] = 1
    return case


def check(case: Case, told: str, remedy: str) -> None:
    """What a command said that a fault has stopped, and what is left of it."""
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, told
    assert "Traceback" not in told
    for part in ("s3://osasis-tests/", "cannot ", remedy):
        assert part in errors[0], told
    assert case.rows() == []


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.slow) if "overloaded" in fault else fault for fault in FAULTS]
)
def test_a_fault_is_told_and_the_same_command_finishes(
    fault: str, case: Case, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cluster(monkeypatch)
    plan, remedy = FAULTS[fault]
    proxy.follow(plan())
    told = call_job("stylize", *case.argv()[1:], expect=1)
    proxy.follow(lambda request: "pass")
    check(case, told, remedy)
    monkeypatch.setattr(lease, "_process_of", lambda holder: "gone")  # as that of a command is when it has ended
    call_job("stylize", *case.argv()[1:])
    assert case.check_consistent() == {"done": 2}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["a server that stays overloaded"])
def test_so_they_are_by_workers_of_a_cluster(
    fault: str, case: Case, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, remedy = FAULTS[fault]
    proxy.follow(plan())
    told = run_job("stylize", *case.argv()[1:], expect=1, env=dict(os.environ))
    proxy.follow(lambda request: "pass")
    check(case, told, remedy)
    without_cluster(monkeypatch)
    call_job("stylize", *case.argv()[1:])
    assert case.check_consistent() == {"done": 2}
