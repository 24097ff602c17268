"""Early stopping: it ends where held-out contents gain nothing, and keeps what was best."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from osasis.base import Base, load_base
from osasis.settings import TrainConfig, train_config
from osasis.style_training import StyleTraining
from tests.support.tiny import SIZE, make_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def config(base: Base, **overrides: Any) -> TrainConfig:
    stopping = {"patience": 2, "check_every": 1, "held_out": 2, "iterations": 12, "dropout": False, "adapter_rank": 2}
    return train_config("official", base.spec.train_defaults, stopping | overrides)


def image() -> Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_training_that_gets_worse_stops_and_keeps_the_best(base: Base) -> None:
    training = StyleTraining(base, image(), config(base, learning_rate=0.3))
    assert training.stopping is not None
    list(training.run())
    scores, stopping = training.stopping.scores, training.stopping
    assert training.iterations_done < 12
    assert len(scores) == training.iterations_done == stopping.best_iteration + 2
    assert training.finetuner.score(stopping.held_out) == pytest.approx(min(scores), rel=1e-6)
    assert "no better score in 2 checks" in stopping.reason(training.iterations_done)
    assert training.metrics()["stopped_early"] == 1


def test_a_training_that_gets_better_does_all_its_iterations(base: Base) -> None:
    training = StyleTraining(base, image(), config(base, learning_rate=1e-5, spn_learning_rate=1e-5, iterations=3))
    list(training.run())
    assert training.iterations_done == 3
    assert training.metrics()["stopped_early"] == 0


def test_held_out_contents_are_not_trained_on(base: Base) -> None:
    training = StyleTraining(base, image(), config(base))
    assert training.stopping is not None
    held, trained = training.stopping.held_out.photos, training.bank.content.photos
    assert (len(held), len(trained)) == (2, 4)
    assert not any(torch.equal(one, other) for one in held for other in trained)
    with pytest.raises(ValueError, match="there are 6 contents"):
        StyleTraining(base, image(), config(base, held_out=6))


def test_a_resumed_training_stops_where_the_uninterrupted_one_does(base: Base, tmp_path: Path) -> None:
    whole = StyleTraining(base, image(), config(base, learning_rate=0.3))
    list(whole.run())
    first = StyleTraining(base, image(), config(base, learning_rate=0.3))
    next(first.run())
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    second = StyleTraining(base, image(), config(base, learning_rate=0.3), state=state)
    list(second.run())
    assert second.iterations_done == whole.iterations_done
    assert second.checkpoint("s", "official") == whole.checkpoint("s", "official")
