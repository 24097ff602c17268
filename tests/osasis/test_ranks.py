"""Several processes that train one style: networks in float64, so that errors show and the order of sums hardly."""

from pathlib import Path
from typing import Any

import pytest
import torch

from osasis.ranks import ALONE, PeerFailed, Ranks
from tests.support.rank_case import together, trained
from tests.support.tiny import make_tiny_base

QUIET = {"batch_size": 3, "iterations": 2, "dropout": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


def check_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for mine, theirs in zip(found["losses"], expected["losses"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    # Adam moves a weight whose gradient is all rounding as far as any other.
    assert (found["weights"] - expected["weights"]).norm() < 0.01 * (expected["weights"] - expected["before"]).norm()


@pytest.mark.parametrize(
    "more",
    [{}, {"adapter_rank": 2}, {"micro_batch": 1}, {"patience": 1, "check_every": 1, "held_out": 1}],
    ids=["all weights", "adapter", "micro-batches", "stopped early"],
)
def test_two_processes_train_what_one_does(base: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    alone = trained(base, ALONE, QUIET | more)
    first, second = together(base, 2, tmp_path, **QUIET | more)
    check_equal(first, alone)
    assert first["losses"] == second["losses"]
    assert torch.equal(first["weights"], second["weights"])


def test_where_one_runs_out_of_memory_all_take_less(base: Path, tmp_path: Path) -> None:
    settings = QUIET | {"batch_size": 4}
    alone = trained(base, ALONE, settings)
    found = together(base, 2, tmp_path, **settings, short_of_memory=1)
    assert [one["memory_use"] for one in found] == ["activations recomputed, 1 contents at once"] * 2
    check_equal(found[0], alone)


def test_more_processes_than_contents_are_refused_by_all(base: Path, tmp_path: Path) -> None:
    found = together(base, 2, tmp_path, **QUIET | {"batch_size": 1})
    assert [one["error"].partition(":")[0] for one in found] == ["ValueError"] * 2
    assert "2 processes share batches of 1" in found[0]["error"]


def test_contents_are_shared_without_one_left_out_or_taken_twice() -> None:
    for count in (1, 2, 3):
        parts = [Ranks(rank, count).share(8) for rank in range(count)]
        assert torch.cat(parts).tolist() == list(range(8))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_error_of_ones_own_is_told_as_it_is() -> None:
    with pytest.raises(KeyError), ALONE.all_well():
        raise KeyError
    with pytest.raises(PeerFailed), _OtherFails().all_well():
        pass


class _OtherFails(Ranks):
    def any(self, flag: bool) -> bool:
        return True
