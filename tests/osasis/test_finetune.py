"""Finetuning: what a run is made of, and that it can be cut anywhere."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from osasis.base import Base, load_base, load_spec
from osasis.checkpoint import load_style
from osasis.errors import BaseError, BaseMismatch, CheckpointError, NotFinite
from osasis.settings import TrainConfig, train_config
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize
from tests.support.tiny import SIZE, make_tiny_base, make_tiny_style


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def config(base: Base, **overrides: Any) -> TrainConfig:
    return train_config("official", base.spec.train_defaults, overrides)


def style_image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    """A state as a checkpoint file gives it back, without running pickled code."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(base: Base) -> None:
    whole = StyleTraining(base, style_image(), config(base))
    losses = list(whole.run())
    first = StyleTraining(base, style_image(), config(base))
    run = first.run()
    cut = [next(run), next(run)]
    second = StyleTraining(base, style_image(), config(base), state=saved_and_loaded(first.state_dict()))
    cut += list(second.run())
    assert cut == losses
    assert second.checkpoint("s", "official") == whole.checkpoint("s", "official")


def test_training_lowers_the_loss_and_changes_only_copies(base: Base) -> None:
    before = {name: tensor.clone() for name, tensor in base.diffae.state_dict().items()}
    training = StyleTraining(base, style_image(), config(base, iterations=8, learning_rate=1e-3, dropout=False))
    losses = [step["total"] for step in training.run()]
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.diffae.state_dict().items())


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_presets_train(base: Base, preset: Any) -> None:
    training = StyleTraining(base, style_image(), train_config(preset, base.spec.train_defaults, {"iterations": 1}))
    (step,) = training.run()
    assert math.isfinite(step["total"])
    assert step.keys() == {"cross_domain", "in_domain", "recon_clip", "recon_l1", "recon_perceptual", "total"}


def test_a_term_of_weight_zero_is_not_computed(base: Base) -> None:
    weights = {"in_domain": 0, "recon_perceptual": 0}
    training = StyleTraining(base, style_image(), config(base, iterations=1, weights=weights))
    (step,) = training.run()
    assert step.keys() == {"cross_domain", "recon_clip", "recon_l1", "total"}


def test_not_a_number_stops_before_the_update(base: Base) -> None:
    training = StyleTraining(base, style_image(), config(base))
    weights = training.finetuner.unet.state_dict()
    training.reference.style.fill_(math.nan)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    with pytest.raises(NotFinite, match="iteration 0"):
        next(training.run())
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.items())


def test_a_checkpoint_stylizes_as_the_training_it_came_from(base: Base, tmp_path: Path) -> None:
    training = StyleTraining(base, style_image(), config(base, iterations=1))
    list(training.run())
    path = tmp_path / "style.safetensors"
    path.write_bytes(training.checkpoint("s", "official"))
    loaded, settings = load_style(path, base), _quick()
    encoded = encode(base, style_image(3), encoding_for(loaded, settings))
    ours = stylize(training.style("s", "official"), encoded, settings)
    theirs = stylize(loaded, encoded, settings)
    assert (ours - theirs).abs().max() < 0.02  # the file is float16
    assert loaded.config == training.config


def test_a_style_is_refused_on_another_base(base: Base, tmp_path: Path) -> None:
    other = make_tiny_base(tmp_path / "other", seed=1)
    path = make_tiny_style(other, tmp_path / "style.safetensors")
    with pytest.raises(BaseMismatch, match="was trained on base tiny"):
        load_style(path, base)
    assert load_style(path, load_base(other)).header.style_id == "tiny-style"


@pytest.mark.parametrize("damage", [b"", b"not a tensor file", b"\x80\x04K\x01."])
def test_damaged_checkpoints_are_refused(base: Base, tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"style\.safetensors"):
        load_style(path, base)


def test_a_damaged_base_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "base", bank=False)
    file = folder / "diffae.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(BaseError, match="damaged"):
        load_base(folder)
    file.unlink()
    with pytest.raises(BaseError, match="missing"):
        load_base(folder)
    with pytest.raises(BaseError, match="not a base bundle"):
        load_spec(tmp_path)


def test_a_base_without_a_bank_draws_its_own(tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path / "base", bank=False))
    training = StyleTraining(base, style_image(), config(base, iterations=1))
    assert len(training.bank.content) == 64
    (step,) = training.run()
    assert math.isfinite(step["total"])


def _quick() -> Any:
    from osasis.settings import StylizeConfig

    return StylizeConfig(encode_steps=10, decode_steps=5)


@pytest.mark.parametrize("saving", [{"micro_batch": 1}, {"micro_batch": 2}, {"recompute": True}])
def test_what_saves_memory_changes_no_loss(base: Base, saving: dict[str, Any]) -> None:
    weights = {"style_moments": 10, "style_colors": 5, "self_similarity": 20, "edges": 5}
    settings = {"iterations": 2, "batch_size": 3, "dropout": False, "weights": weights}
    expected = list(StyleTraining(base, style_image(), config(base, **settings)).run())
    found = list(StyleTraining(base, style_image(), config(base, **settings, **saving)).run())
    for ours, plain in zip(found, expected, strict=True):
        assert ours == pytest.approx(plain, rel=1e-3, abs=1e-6)
