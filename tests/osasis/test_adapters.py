"""Adapters: what they compute, what is stored of them, and that a style of adapters does all that another does."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from osasis.base import Base, load_base
from osasis.checkpoint import ADAPTER_FORMAT, Style, load_style, read_header
from osasis.networks.adapters import PLACES, Place, adapt, deltas_of, merged, trained_parameters
from osasis.networks.unet import UNet
from osasis.pipeline import StylePipeline
from osasis.settings import StylizeConfig, TrainConfig, train_config
from osasis.strength import at_strength, mix
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize
from tests.support.tiny import SIZE, make_tiny_base

QUICK = StylizeConfig(encode_steps=10, decode_steps=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def config(base: Base, **overrides: Any) -> TrainConfig:
    adapters = {"adapter_rank": 4, "learning_rate": 1e-2, "spn_width": 16, "spn_init": "zero", "iterations": 3}
    return train_config("official", base.spec.train_defaults, adapters | overrides)


def image(seed: int = 0, count: int = 1) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def disturbed(base: Base, places: tuple[Place, ...] = PLACES) -> UNet:
    """The base's UNet with adapters that do something."""
    unet = adapt(copy.deepcopy(base.diffae.unet), 3, places, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in trained_parameters(unet).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return unet


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return image(5, 2).to(dtype), torch.tensor([100, 700]), torch.randn(2, 12, generator=torch.Generator()).to(dtype)


@pytest.fixture(scope="module")
def trained(base: Base) -> StyleTraining:
    training = StyleTraining(base, image(), config(base))
    list(training.run())
    return training


def test_a_new_adapter_changes_nothing(base: Base) -> None:
    unet = adapt(copy.deepcopy(base.diffae.unet), 4, PLACES, seed=0)
    x, t, z = inputs()
    assert torch.equal(unet(x, t, z), base.diffae.unet(x, t, z))


def test_merged_weights_give_what_adapters_give(base: Base) -> None:
    unet = disturbed(base)
    x, t, z = inputs()
    alone = merged(base.diffae.unet, deltas_of(unet, base.diffae.unet))
    difference = (alone(x, t, z) - unet(x, t, z)).abs().max()
    assert difference < 2e-5
    assert (unet(x, t, z) - base.diffae.unet(x, t, z)).abs().max() > 1000 * difference


def test_a_merged_network_leaves_its_base_as_it_was(base: Base, trained: StyleTraining) -> None:
    unet = base.diffae.unet
    before = copy.deepcopy(unet.state_dict())
    alone = merged(unet, deltas_of(trained.finetuner.unet, unet))
    kernels = [p for p in alone.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    alone.double().requires_grad_(True).train()
    assert all(torch.equal(now, before[name]) for name, now in unet.state_dict().items())
    assert {(p.dtype, p.requires_grad) for p in unet.parameters()} == {(torch.float32, False)}
    assert not unet.training


@pytest.mark.parametrize("place", PLACES)
def test_gradients_are_those_of_the_merged_network(base: Base, place: Place) -> None:
    unet = disturbed(base, (place,)).double()
    x, t, z = inputs(torch.float64)
    x.requires_grad_(True)
    unet(x, t, z).square().sum().backward()
    names, parameters = zip(*trained_parameters(unet).items(), strict=True)
    plain = {n: p.detach() for n, p in UNet.named_parameters(merged(base.diffae.unet, {}).double())}

    def plainly(x: Tensor, *values: Tensor) -> Tensor:
        """The same by weights that autograd sees merged."""
        given, weights = dict(zip(names, values, strict=True)), dict(plain)
        for name, value in given.items():
            layer, _, part = name.rpartition(".")
            if part == "up":
                mixer = torch.eye(len(value), dtype=value.dtype) + value @ given[f"{layer}.down"]
                for kind in ("weight", "bias"):
                    weights[f"{layer}.{kind}"] = torch.einsum("po,o...->p...", mixer, plain[f"{layer}.{kind}"])
            elif part != "down":
                weights[name] = value
        network = merged(base.diffae.unet, {}).double()
        return torch.func.functional_call(network, weights, (x, t, z)).square().sum()

    values = [x.detach().requires_grad_(True), *(p.detach().requires_grad_(True) for p in parameters)]
    expected = torch.autograd.grad(plainly(*values), values)
    for name, ours, theirs in zip(("x", *names), (x, *parameters), expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-6, atol=1e-8, msg=f"{name}: {{}}".format)


def test_only_adapters_and_spn_have_gradients_and_a_state(base: Base, trained: StyleTraining) -> None:
    tuner = trained.finetuner
    frozen = {name for name, p in tuner.unet.named_parameters() if not p.requires_grad}
    assert any(name.endswith("in_layers.2.weight") for name in frozen)
    assert all(dict(tuner.unet.named_parameters())[name].grad is None for name in frozen)
    assert not frozen & tuner.state_dict()["unet"].keys()
    before = dict(base.diffae.unet.named_parameters())
    assert all(torch.equal(dict(tuner.unet.named_parameters())[name], before[name]) for name in frozen)


def test_a_resumed_training_of_adapters_equals_the_uninterrupted_one_bit_for_bit(
    base: Base, trained: StyleTraining
) -> None:
    first = StyleTraining(base, image(), config(base))
    next(first.run())
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    second = StyleTraining(base, image(), config(base), state=state)
    list(second.run())
    assert second.checkpoint("s", "official") == trained.checkpoint("s", "official")


def test_the_file_holds_adapters_alone_and_stylizes_as_the_training(
    base: Base, trained: StyleTraining, tmp_path: Path
) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(trained.checkpoint("s", "official"))
    assert read_header(path).format == ADAPTER_FORMAT
    loaded = load_style(path, base)
    encoded = encode(base, image(3), encoding_for(loaded, QUICK))
    ours = stylize(trained.style("s", "official"), encoded, QUICK)
    assert (ours - stylize(loaded, encoded, QUICK)).abs().max() < 0.02  # the file is float16
    assert (
        ours - stylize(at_strength(loaded, base, 0.0), encoded, QUICK.model_copy(update={"style_strength": 0.0}))
    ).abs().max() > 0.02
    StylePipeline(base, loaded).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_styles_mix_by_weights(base: Base, trained: StyleTraining) -> None:
    one = trained.style("one", "official")
    other = StyleTraining(base, image(7), config(base, iterations=1, adapter_rank=0)).style("other", "official")
    encoded = encode(base, image(3), encoding_for(one, QUICK))

    def picture(style: Style) -> Tensor:
        return stylize(style, encoded, QUICK)

    assert (picture(mix(base, [(one, 1.0)])) - picture(one)).abs().max() < 1e-4
    half = picture(mix(base, [(one, 0.5), (other, 0.5)]))
    ends = picture(one), picture(other)
    assert all((half - end).norm() < (ends[0] - ends[1]).norm() for end in ends)
    with pytest.raises(ValueError, match="sum to 1"):
        mix(base, [(one, 0.5), (other, 0.2)])


def test_the_bundled_bases_adapter_is_a_thirtieth_of_the_whole_style() -> None:
    from osasis.base import bundled_bases
    from osasis.checkpoint import StyleHeader, dump_style
    from osasis.networks.spn import make_spn

    loaded = load_base(bundled_bases()["mini64"], check=False)
    unet, z = loaded.diffae.unet, torch.zeros(1, 128)
    adapters = train_config("official", loaded.spec.train_defaults, {"adapter_rank": 4, "spn_width": 16})
    whole = adapters.model_copy(update={"adapter_rank": 0, "spn_width": 128})
    sizes = []
    for settings in (adapters, whole):
        header = StyleHeader(style_id="s", base_name="mini64", base_fingerprint="", preset="official", config=settings)
        deltas = None
        if settings.adapter_rank:
            adapted = adapt(copy.deepcopy(unet), settings.adapter_rank, settings.adapter_places, seed=0)
            deltas = deltas_of(adapted, unet)
        spn = make_spn(settings.spn, settings.spn_width)
        sizes.append(len(dump_style(header, unet, spn, z, deltas=deltas)))
    assert sizes[0] < 0.03 * sizes[1]
