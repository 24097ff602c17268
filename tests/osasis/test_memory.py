"""Gradients within the memory that there is. There is no GPU: what takes too much is told by a stand-in."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from osasis.base import Base, load_base
from osasis.finetune import Finetuner
from osasis.memory import MemoryUse, limit_gpu_memory, within_memory
from osasis.settings import train_config
from osasis.style_training import StyleTraining
from tests.support.tiny import SIZE, make_tiny_base

BATCH = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def training(base: Base, state: dict[str, Any] | None = None, **overrides: Any) -> StyleTraining:
    config = train_config("official", base.spec.train_defaults, {"batch_size": BATCH, "iterations": 2} | overrides)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return StyleTraining(base, image, config, state=state)


def with_memory_for(training: StyleTraining, contents: int, *, kept: bool = False) -> list[MemoryUse]:
    """Lets gradients of so many contents at once fit, without recomputing only where ``kept``. What fails."""
    tuner, failed = training.finetuner, []
    predict: Callable[..., Any] = tuner.predict

    def limited(x_t: torch.Tensor, *rest: Any) -> Any:
        found = predict(x_t, *rest)
        at_once = len(x_t) - 1
        if torch.is_grad_enabled() and (at_once > contents or not (kept or tuner.unet.recompute)):
            failed.append(MemoryUse(tuner.unet.recompute, at_once))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    tuner.predict = limited  # type: ignore[method-assign]
    return failed


def bits(training: StyleTraining) -> bytes:
    list(training.run())
    return training.checkpoint("s", "official")


def weights_of(tuner: Finetuner) -> list[torch.Tensor]:
    return [weight.clone() for part in tuner.weights().values() for weight in part.values()]


def test_where_memory_runs_out_the_training_is_the_one_that_takes_less_from_the_start(base: Base) -> None:
    tight = training(base)
    failed = with_memory_for(tight, contents=1)
    list(tight.run())
    less = training(base, recompute=True, micro_batch=1)
    list(less.run())
    assert failed == [MemoryUse(False, 4), MemoryUse(True, 4), MemoryUse(True, 2)]  # once, not with every update
    assert tight.finetuner.memory_use == MemoryUse(True, 1)
    for a, b in zip(weights_of(tight.finetuner), weights_of(less.finetuner), strict=True):
        assert torch.equal(a, b)


def test_recomputing_is_tried_before_contents_are_divided_and_changes_no_bit(base: Base) -> None:
    tight, whole = training(base), training(base)
    failed = with_memory_for(tight, contents=BATCH)
    assert bits(tight) == bits(whole)
    assert failed == [MemoryUse(False, BATCH)]
    assert tight.finetuner.memory_use == MemoryUse(True, BATCH)


def test_a_resumed_training_goes_on_with_what_fits(base: Base) -> None:
    whole = training(base, iterations=3)
    with_memory_for(whole, contents=2)
    first = training(base, iterations=3)
    with_memory_for(first, contents=2)
    next(first.run())
    second = training(base, state=first.state_dict(), iterations=3)
    failed = with_memory_for(second, contents=2)
    assert bits(second) == bits(whole)
    assert not failed


def test_without_memory_for_a_single_content_it_ends(base: Base) -> None:
    tight = training(base)
    before = weights_of(tight.finetuner)
    failed = with_memory_for(tight, contents=0)
    with pytest.raises(torch.OutOfMemoryError):
        next(tight.run())
    assert failed[-1] == MemoryUse(True, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(tight.finetuner), strict=True))


def test_what_a_failed_attempt_computed_is_gone_before_the_next() -> None:
    computed: list[weakref.ref[torch.Tensor]] = []

    def compute(use: MemoryUse) -> float:
        assert all(tensor() is None for tensor in computed)
        tensor = torch.rand(3)
        computed.append(weakref.ref(tensor))
        if use.contents > 2:
            raise torch.OutOfMemoryError
        return float(tensor.sum())

    torch.manual_seed(7)
    expected = float(torch.rand(3).sum())
    torch.manual_seed(7)
    assert within_memory(compute, MemoryUse(True, 8)) == (expected, MemoryUse(True, 2))
    assert len(computed) == 3


def test_odd_numbers_are_halved_upwards_and_all_means_all() -> None:
    assert MemoryUse(True, 5).less() == MemoryUse(True, 3)
    assert MemoryUse(True, 1).less() is None
    assert MemoryUse(False, 0).of(6) == MemoryUse(False, 6)
    assert MemoryUse(False, 8).of(6) == MemoryUse(False, 6)


@pytest.mark.parametrize(("most", "part"), [(24, 0.3), (80, 1.0), (100, 1.0)])
def test_a_limit_is_a_part_of_the_gpu(monkeypatch: pytest.MonkeyPatch, most: int, part: float) -> None:
    said = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 80))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: said.append(given))
    limit_gpu_memory(most, torch.device("cuda"))
    assert said == [(part, torch.device("cuda"))]
