"""How many workers are wanted, what each takes, and how long they are waited for: no cluster needed."""

import logging
from datetime import timedelta

import pytest

from cluster.commandline.cli import ConfigError, ElasticFlags, parse_flags
from cluster.commandline.durations import in_words, parse_duration, typed
from cluster.runtime.outlook import outlook
from cluster.runtime.resources import ACCELERATOR_LABEL, Node, Resources, capacity, lacking, settled
from cluster.runtime.target import Target
from cluster.runtime.waiting import Patience

HEAD = {"Resources": {"memory": 1e9}}
CPUS = {"Resources": {"CPU": 4.0}}
A100 = {"Resources": {"CPU": 8.0, "GPU": 2.0}, "Labels": {ACCELERATOR_LABEL: "A100"}}
L4 = {"Resources": {"CPU": 8.0, "GPU": 1.0}, "Labels": {ACCELERATOR_LABEL: "L4"}}


@pytest.mark.parametrize(
    ("text", "target"), [("8", Target(8, 8)), (8, Target(8, 8)), ("2-64", Target(2, 64)), ("auto", Target(1, None))]
)
def test_a_target_is_a_number_a_range_or_auto(text: object, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == str(text)
    assert Target.parse(target) is target


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "5-2", "0-3", "1-", "1.5", "2-x", True, None])
def test_other_targets_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match=f"not '{text}'"):
        Target.parse(text)


def test_a_target_meets_room_and_work() -> None:
    auto, some, eight = Target(), Target(2, 64), Target(8, 8)
    assert [auto.of(100), some.of(100), some.of(3), eight.of(3)] == [100, 64, 3, 3]
    assert [auto.missing(0), auto.missing(1), some.missing(1), eight.missing(3), eight.missing(9)] == [1, 0, 1, 5, 0]
    assert [auto.within(5), some.within(1), eight.within(5)] == [Target(1, 5), Target(1, 1), Target(5, 5)]


def test_flags_of_workers_have_defaults_that_are_read_back() -> None:
    flags = parse_flags(ElasticFlags, [])
    assert (flags.workers, flags.gpus_per_worker, flags.wait) == (Target(), "auto", timedelta(minutes=15))
    given = parse_flags(ElasticFlags, ["--workers", "2-64", "--wait", "90s", "--gpus-per-worker", "0.5"])
    assert given.model_dump(mode="json") | {"workers": "2-64", "wait": "90s", "gpus_per_worker": 0.5} == (
        given.model_dump(mode="json")
    )
    assert ElasticFlags(**given.model_dump(mode="json")) == given
    with pytest.raises(ConfigError) as caught:
        parse_flags(ElasticFlags, ["--workers", "many", "--wait", "long", "--gpus-per-worker", "-1"])
    assert [str(problem).partition(":")[0] for problem in caught.value.problems].count("--workers") == 1
    assert "--wait: must be a duration such as 30d, 12h, 15m, 90s or 0, not 'long'" in str(caught.value)


def test_durations_are_read_and_told() -> None:
    assert [parse_duration(text).total_seconds() for text in ("1d", "2h", "15m", "90s", "0")] == [
        86400, 7200, 900, 90, 0,
    ]  # fmt: skip
    assert [typed(parse_duration(text)) for text in ("2h", "15m", "90s", "0s")] == ["120m", "15m", "90s", "0"]
    assert [in_words(parse_duration(text)) for text in ("90s", "15m", "200m")] == ["90 s", "15 min", "3 h 20 min"]


@pytest.mark.parametrize(
    ("gpus", "accelerator", "there", "taken"),
    [
        ("auto", "", [HEAD, CPUS], Resources(1, 0)),
        ("auto", "", [HEAD, CPUS, L4], Resources(1, 1)),
        ("auto", "A100", [], Resources(1, 1, "A100")),
        (0.0, "", [A100], Resources(1, 0)),
        (0.5, "", [], Resources(1, 0.5)),
    ],
)
def test_gpus_are_used_where_there_are_any(gpus: object, accelerator: str, there: list[Node], taken: Resources) -> None:
    assert settled(1, gpus, accelerator, there) == taken  # type: ignore[arg-type]


def test_an_accelerator_selects_nodes() -> None:
    there = [HEAD, CPUS, A100, L4]
    assert capacity(Resources(1, 1), there) == 3
    assert capacity(Resources(1, 1, "A100"), there) == 2
    assert capacity(Resources(1, 1, "H100"), there) == 0
    assert Resources(1, 1, "A100").ray_options()["label_selector"] == {ACCELERATOR_LABEL: "A100"}
    assert lacking(Resources(1, 1, "H100"), [HEAD, L4]) == (
        "one worker needs 1 CPU and 1 GPU of H100, which no node of the cluster has "
        "(nodes: 0 CPU, 0 GPU; 8 CPU, 1 GPU of L4)"
    )


def test_the_plan_tells_device_type_and_number() -> None:
    there = [HEAD, CPUS, A100, L4]
    assert outlook(Resources(1, 1), Target(), there) == "3 workers on cuda (A100, L4), 1 CPU and 1 GPU each"
    assert outlook(Resources(1, 0.5, "L4"), Target(8, 8), there) == (
        "2 workers of 8 on cuda (L4), 1 CPU and 0.5 GPU of L4 each"
    )
    assert outlook(Resources(1), Target(2, 2), there) == "2 workers on cpu, 1 CPU each"
    assert outlook(Resources(1), Target(2, 64), [HEAD]) == "0 workers of 2-64 on cpu, 1 CPU each"


def test_what_is_missing_is_told_at_once_then_seldom(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    patience = Patience(timedelta(minutes=3), lambda: now)
    told = []
    for _ in range(20):
        told.append(patience.wait("no node has a GPU"))
        now += 10
    assert told == [True] * 18 + [False] * 2
    assert caplog.messages == [
        "no node has a GPU: waiting for it, up to 3 min (--wait)",
        "no node has a GPU: 60 s of 3 min",
        "no node has a GPU: 2 min of 3 min",
        "no node has a GPU: 3 min of 3 min",
    ]
    patience.over()
    assert patience.wait("again")
    assert not Patience(timedelta(0), lambda: now).wait("nothing to wait for")
    assert caplog.messages[-1] == "again: waiting for it, up to 3 min (--wait)"
