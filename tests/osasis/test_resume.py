"""A training that is cut and resumed makes the file of one that was not, bit for bit, whatever its settings."""

import io
from typing import Any

import pytest
import torch

from osasis.base import Base, load_base
from osasis.settings import train_config
from osasis.style_training import StyleTraining
from osasis.warm_start import WarmStart, evenly
from tests.support.tiny import SIZE, make_tiny_base

ADAPTERS = {"adapter_rank": 4, "spn_width": 16, "spn_init": "zero"}
MODES: dict[str, dict[str, Any]] = {
    "micro_batch": {"micro_batch": 1},
    "recompute": {"recompute": True},
    "bf16": {"precision": "bf16"},
    "spn_width": {"spn_width": 16},
    "adapters in little memory": ADAPTERS | {"micro_batch": 1, "recompute": True},
    "adapters, stopped early": ADAPTERS | {"patience": 1, "held_out": 1, "micro_batch": 1},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def training(base: Base, overrides: dict[str, Any], **more: Any) -> StyleTraining:
    config = train_config("official", base.spec.train_defaults, {"iterations": 3, "dropout": True} | overrides)
    picture = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return StyleTraining(base, picture, config, **more)


def check(base: Base, overrides: dict[str, Any], start: WarmStart | None = None) -> None:
    whole, first = (training(base, overrides, start=start) for _ in range(2))
    losses, cut = list(whole.run()), [next(first.run())]
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    second = training(base, overrides, state=torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert [*cut, *second.run()] == losses
    assert second.checkpoint("s", "official") == whole.checkpoint("s", "official")


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(base: Base, mode: str) -> None:
    check(base, MODES[mode])


@pytest.mark.parametrize("rank", [0, 4])
def test_so_does_one_that_began_at_another_style(base: Base, rank: int) -> None:
    other = training(base, ADAPTERS | {"iterations": 1, "seed": 5})
    list(other.run())
    check(base, {"adapter_rank": rank, "spn_width": 16}, evenly([other.style("other", "official")], ["other@1"]))
