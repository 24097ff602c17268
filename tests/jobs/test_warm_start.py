"""A style that begins where others ended: exactly there, and at those the catalog says are nearest."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from catalog.store import StyleCatalog, UnknownStyle
from cluster.storage import Storage
from jobs.finetuning.warm_start import warm_start
from osasis.base import Base, clip_fingerprint, load_base
from osasis.checkpoint import read_header
from osasis.settings import StylizeConfig, TrainConfig, train_config
from osasis.strength import mix
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize
from osasis.warm_start import WarmStart, evenly
from tests.support.styles import finished_training
from tests.support.tiny import SIZE, make_tiny_base

QUICK = StylizeConfig(encode_steps=10, decode_steps=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def image(seed: int) -> Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def config(base: Base, **overrides: Any) -> TrainConfig:
    settings = {"adapter_rank": 4, "spn_width": 16, "iterations": 1, "learning_rate": 0.02, "dropout": False}
    return train_config("official", base.spec.train_defaults, settings | overrides)


@pytest.fixture(scope="module")
def ended(base: Base) -> list[StyleTraining]:
    trainings = [StyleTraining(base, image(seed), config(base)) for seed in range(2)]
    for training in trainings:
        list(training.run())
    return trainings


def begun(base: Base, start: WarmStart, **overrides: Any) -> StyleTraining:
    return StyleTraining(base, image(9), config(base, **overrides), photo=image(8), start=start)


def gap(base: Base, training: StyleTraining, styles: Sequence[StyleTraining]) -> float:
    """Largest difference of pictures from those of the styles' average, by weights alone."""
    mixed = mix(base, evenly([style.style("s", "official") for style in styles]).styles)
    ours = training.style("s", "official")
    encoded = encode(base, image(3), encoding_for(ours, QUICK))
    no_spn = QUICK.model_copy(update={"lambda_spn": 0.0, "strength_of": "weights"})
    pictures = [stylize(style, encoded, no_spn) for style in (ours, mixed)]
    return (pictures[0] - pictures[1]).abs().max().item()


@pytest.mark.parametrize("rank", [0, 4])
def test_training_begins_where_a_style_ended(base: Base, ended: list[StyleTraining], rank: int) -> None:
    start = evenly([ended[0].style("s", "official")])
    training = begun(base, start, adapter_rank=rank, style_condition="style")
    training.reference.z_style.copy_(ended[0].reference.z_style)
    assert gap(base, training, ended[:1]) < 1e-4


def test_training_begins_at_the_average_of_two(base: Base, ended: list[StyleTraining]) -> None:
    start = evenly([training.style("s", "official") for training in ended])
    training = begun(base, start, adapter_rank=8)  # of two styles of rank 4
    average = (ended[0].reference.z_style + ended[1].reference.z_style) / 2
    training.reference.z_style.copy_(average)
    assert gap(base, training, ended) < 1e-4


def test_adapters_do_not_begin_from_whole_weights(base: Base) -> None:
    whole = StyleTraining(base, image(0), config(base, adapter_rank=0), photo=image(8)).style("whole", "official")
    with pytest.raises(ValueError, match="cannot begin from whole"):
        begun(base, evenly([whole]))


def test_the_nearest_styles_of_the_catalog_are_taken(base: Base, ended: list[StyleTraining], tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "out")
    nearest = config(base, start_from="nearest")
    catalog = StyleCatalog.open(storage)
    for name, seed in (("far", 5), ("near", 9), ("nearer", 9)):
        data = ended[0].checkpoint(name, "official")
        new = finished_training(storage, name, data, key=f"{seed:012d}")
        sign = -1 if name == "far" else 1
        embedding = (sign * base.clip.encode_image(image(9))[0]).tolist()
        fields = {"base_fingerprint": base.fingerprint, "clip_encoder": clip_fingerprint(base.spec)}
        fields |= {"clip_embedding": embedding, "checkpoint_format": ended[0].header("s", "official").format}
        catalog.register(new.model_copy(update=fields))
    start = warm_start(storage, base, nearest, image(9))
    assert start is not None
    assert sorted(start.names) == ["near@1", "nearer@1"]
    named = warm_start(storage, base, config(base, start_from="far"), image(9))
    assert named is not None
    assert named.names == ("far@1",)
    two = warm_start(storage, base, config(base, start_from="far,near@1"), image(9))
    assert two is not None
    assert two.names == ("far@1", "near@1")
    assert warm_start(storage, base, config(base, start_from="nearest", adapter_rank=0), image(9)) is None
    assert warm_start(storage, base, config(base), image(9)) is None
    with pytest.raises(UnknownStyle):
        warm_start(storage, base, config(base, start_from="gone"), image(9))


def test_the_file_tells_what_training_began_from_after_a_resume_too(
    base: Base, ended: list[StyleTraining], tmp_path: Path
) -> None:
    start = evenly([ended[0].style("s", "official")], ["other@3"])
    first = begun(base, start, iterations=2)
    next(first.run())
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    second = StyleTraining(base, image(9), config(base, iterations=2), state=state)
    list(first.run())
    list(second.run())
    file = tmp_path / "style.safetensors"
    file.write_bytes(second.checkpoint("s", "official"))
    assert file.read_bytes() == first.checkpoint("s", "official")
    assert read_header(file).started_from == ("other@3",)
