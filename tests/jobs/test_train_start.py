"""jobs/train_start.py: a start is learnt round by round, survives a kill, and trainings begin from it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from catalog.store import StyleCatalog
from cluster.storage import Storage
from jobs.train_start import references_of
from osasis.base import Base, load_base
from osasis.checkpoint import Style, load_style
from osasis.image import encode_png
from osasis.meta_start import inner_config, moved, train_from
from osasis.settings import train_config
from osasis.style_training import training_content
from tests.support.hostile import picture
from tests.support.jobs_run import call_job
from tests.support.tiny import SIZE, make_tiny_base

ADAPTERS = {"adapter_rank": 2, "spn_width": 16, "learning_rate": 0.02, "dropout": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(folder)


def trained(base: Base, seed: int, start: Style | None = None, **overrides: Any) -> Style:
    config = inner_config(train_config("official", base.spec.train_defaults, ADAPTERS | overrides), 1)
    rng = torch.Generator().manual_seed(seed)
    image, photo = (torch.rand(2, 3, SIZE, SIZE, generator=rng) * 2 - 1).split(1)
    content = training_content(base, config)
    return train_from(base, start, image, config, "official", content, photo=photo)[0]


def change(style: Style, base: Base) -> torch.Tensor:
    """What it adds to a convolution's weight."""
    return style.unet.get_parameter(WEIGHT) - base.diffae.unet.get_parameter(WEIGHT)


WEIGHT = "input_blocks.0.0.weight"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_start_moves_to_the_average_of_what_was_trained_from_it(base: Base, rank: int) -> None:
    one, other = (trained(base, seed, adapter_rank=rank) for seed in (1, 2))
    half = moved(base, None, [one], 0.5)
    torch.testing.assert_close(change(half, base), change(one, base) / 2, rtol=1e-3, atol=1e-6)
    there = moved(base, half, [one], 1.0)
    torch.testing.assert_close(change(there, base), change(one, base), rtol=1e-3, atol=1e-6)
    both = moved(base, half, [one, other], 0.25)
    spns = [style.spn.state_dict() for style in (both, half, one, other)]
    for name, weight in spns[0].items():
        expected = 0.75 * spns[1][name] + 0.125 * spns[2][name] + 0.125 * spns[3][name]
        torch.testing.assert_close(weight, expected)


def test_references_come_in_turn() -> None:
    names = list("abcde")
    seen = [name for round_ in range(5) for name in references_of(round_, 3, names, seed=0)]
    assert [sorted(seen[i : i + 5]) for i in (0, 5, 10)] == [names] * 3
    assert seen[:5] != seen[5:10]
    assert len(references_of(0, 12, names, seed=0)) == 12


@pytest.mark.usefixtures("ray_cluster")
def test_learnt_by_a_job_and_begun_from(tmp_path: Path, folder: Path, base: Base) -> None:
    references = tmp_path / "references"
    references.mkdir()
    for i in range(3):
        (references / f"{i}.png").write_bytes(encode_png(picture(seed=i)))
    output = tmp_path / "starts" / "some.safetensors"
    train = ["--train.adapter-rank=2", "--train.spn-width=16", "--train.learning-rate=0.02", "--no-train.dropout"]
    command = ["train_start", "--base", folder, "--references", references, "--output", output, *train]
    command += ["--rounds", "2", "--styles-per-round", "2", "--iterations", "1"]
    said = call_job(*command)
    assert "round 2 of 2" in said
    start = load_style(output, base)
    assert change(start, base).abs().max() > 0
    assert "nothing to do" in call_job(*command)
    assert {path.name for path in output.parent.rglob("*.safetensors")} == {output.name}

    storage = tmp_path / "styles"
    style = ["--storage", storage, "--base", folder, "--id", "one", "--image", references / "0.png"]
    call_job("train_styles", *style, *train, "--train.iterations=1", f"--train.start-from={output}")
    (row,) = StyleCatalog.open(Storage.open(storage)).list()
    assert row.started_from == [str(output)]
    refused = call_job("train_styles", *style, f"--train.start-from={output}", expect=2)
    assert "start of adapters, and all weights are trained" in refused
