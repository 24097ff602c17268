"""Training of a base's parts without Ray: batches, schedules, resume, workers; recipes and their costs."""

import math
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from osasis.diffusion import T, linear_betas
from osasis.networks.diffae import DiffAE
from osasis.networks.encoder import SemanticEncoder
from osasis.networks.latent_prior import LatentPrior
from osasis.networks.layers import timestep_embedding
from osasis.networks.unet import UNet
from osasis.pretrain.cost import training_cost
from osasis.pretrain.crops import Augmentation, CropSampler, JoinedImages
from osasis.pretrain.denoising import DenoisingLoss, DenoisingTrainer, warm_start
from osasis.pretrain.latent import LatentTrainer
from osasis.pretrain.recipe import RECIPES, Recipe
from osasis.pretrain.retime import retimed
from osasis.pretrain.trainer import PretrainConfig
from tests.support.tiny import SPEC, UNET, tiny_recipe

QUICK: dict[str, Any] = {"steps": 6, "batch_size": 4, "warmup_steps": 2, "precision": "float32", "learning_rate": 1e-3}


def pictures(count: int = 6, side: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)


def denoiser(wrap: Any = lambda m: m, dropout: float = 0.0, **changes: Any) -> DenoisingTrainer:
    torch.manual_seed(0)
    network = DiffAE(UNET.model_copy(update={"dropout": dropout}), SPEC.encoder)
    return DenoisingTrainer(network, pictures(), PretrainConfig(**(QUICK | changes)), wrap=wrap)


def run(trainer: DenoisingTrainer, steps: int = 3, rank: int = 0, world: int = 1) -> list[dict[str, float]]:
    return [trainer.step(rank, world) for _ in range(steps)]


def assert_same_course(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]], rel: float) -> None:
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=rel)


def test_micro_batches_give_the_result_of_whole_batches() -> None:
    whole, halves = denoiser(), denoiser(accumulate=2)
    assert_same_course(run(whole), run(halves), rel=1e-4)
    # Adam makes steps of equal size of small gradients too: their rounding shows.
    for a, b in zip(whole.module.parameters(), halves.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-4)


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    trainer = denoiser(DistributedDataParallel)
    losses = [step["loss"] for step in run(trainer, rank=rank, world=2)]
    torch.save({"losses": losses, "weights": trainer.module.state_dict()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_with_half_a_batch_each_give_the_result_of_one(tmp_path: Path) -> None:
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    one = denoiser()
    losses = [step["loss"] for step in run(one)]
    assert np.mean([first["losses"], second["losses"]], axis=0).tolist() == pytest.approx(losses, rel=1e-4)
    assert first["losses"] != second["losses"]
    for name, value in one.module.state_dict().items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(
            first["weights"][name], value, rtol=1e-2, atol=2e-4
        )  # Adam makes much of small gradients


def test_a_resumed_run_equals_an_uninterrupted_one_dropout_included(tmp_path: Path) -> None:
    straight = denoiser(dropout=0.3)
    expected = run(straight, 6)
    cut = denoiser(dropout=0.3)
    seen = run(cut, 2)
    torch.save(cut.state_dict(), tmp_path / "state.pt")
    resumed = denoiser(dropout=0.3)
    torch.rand(7)  # another process has another history of draws
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert seen + run(resumed, 4) == expected
    for a, b in zip(straight.averaged.parameters(), resumed.averaged.parameters(), strict=True):
        assert torch.equal(a, b)


def test_batches_drawn_ahead_by_threads_are_the_same() -> None:
    assert run(denoiser(), 6) == run(denoiser(loaders=2), 6)
    assert run(denoiser(accumulate=2), 6) == run(denoiser(loaders=1, accumulate=2), 6)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_a_batch_is_split_evenly_or_refused(batch: int, world: int, accumulate: int) -> None:
    config = PretrainConfig(steps=1, batch_size=batch, accumulate=accumulate)
    if batch % (world * accumulate):
        with pytest.raises(ValueError, match="split evenly"):
            config.share(world)
    else:
        assert config.share(world) * world * accumulate == batch


@given(st.sampled_from(["constant", "linear", "cosine", "trapezoid"]), st.integers(0, 20), st.integers(25, 200))
def test_rates_warm_up_never_rise_again_and_stay_positive(decay: Any, warmup: int, steps: int) -> None:
    config = PretrainConfig(steps=steps, batch_size=1, learning_rate=0.5, warmup_steps=warmup, decay=decay)
    rates = [config.rate_at(step) for step in range(steps)]
    assert rates[:warmup] == pytest.approx([0.5 * (i + 1) / warmup for i in range(warmup)])
    assert max(rates) <= 0.5
    assert all(a >= b > 0 for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_a_trapezoid_is_constant_and_then_linear_over_a_fifth() -> None:
    config = PretrainConfig(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=0, decay="trapezoid")
    assert [config.rate_at(step) for step in (0, 50, 80)] == pytest.approx([1.0, 1.0, 1.0])
    assert config.rate_at(90) == pytest.approx(0.5)
    assert PretrainConfig(steps=100, batch_size=1, warmup_steps=0, decay="constant").rate_at(99) == 3e-4


def test_gradients_are_clipped_and_the_average_follows() -> None:
    trainer = denoiser(clip_gradient=1e-9, weight_decay=0.0, ema=0.5, learning_rate=1e-3)
    before = [p.clone() for p in trainer.module.parameters()]
    assert run(trainer, 1)[0]["gradient_norm"] > 1e-9
    # Adam divides by the gradient's size; one of 1e-9 drowns in its epsilon of 1e-8.
    assert max((p - q).abs().max().item() for p, q in zip(trainer.module.parameters(), before, strict=True)) < 2e-4
    free = denoiser(ema=0.5)
    run(free, 4)
    gaps = [
        (average - now).abs().max().item()
        for average, now in zip(free.ema.parameters(), free.module.parameters(), strict=True)
    ]
    assert 0 < max(gaps) < 1e-2


def test_starting_from_weights_begins_there_with_a_new_count() -> None:
    trained = denoiser()
    run(trained)
    fresh = denoiser()
    fresh.start_from(trained.averaged.state_dict())
    assert fresh.next_step == 0
    for copy_of in (fresh.module.network, fresh.averaged):
        for a, b in zip(copy_of.parameters(), trained.averaged.parameters(), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.start_from({})


def time_embedding(unet: UNet, t: Tensor) -> Tensor:
    return unet.time_embed(timestep_embedding(t, unet.config.model_channels))


@torch.no_grad()
def test_a_network_moved_to_another_schedule_meets_each_noise_as_before() -> None:
    torch.manual_seed(0)
    config = UNET.model_copy(update={"model_channels": 32, "beta_end": 0.012})
    before, after = UNet(UNET.model_copy(update={"model_channels": 32})), UNet(config)
    fast = timestep_embedding(torch.arange(T), 32).diff(dim=0).abs().amax(0) > 0.008
    before.time_embed[0].weight[:, fast] = 0  # sinusoids that hardly turn can be stretched, those that run cannot
    weights = {f"unet.{name}": value for name, value in before.state_dict().items()}
    moved = retimed(weights, before.config, config, "unet.")
    after.load_state_dict({name.removeprefix("unet."): value for name, value in moved.items()})
    levels, new_levels = ((1 - linear_betas(beta_end=unet.config.beta_end)).cumprod(0) for unet in (before, after))
    t = torch.arange(0, T, 50)
    same_noise = (levels[None] - new_levels[t, None]).abs().argmin(1)
    wanted, unmoved = (time_embedding(before, of) for of in (same_noise, t))
    assert (time_embedding(after, t) - wanted).norm() < 0.05 * (unmoved - wanted).norm()
    assert {name for name in weights if weights[name] is not moved[name]} == {
        "unet.time_embed.0.weight", "unet.time_embed.0.bias"
    }  # fmt: skip
    assert retimed(weights, before.config, before.config, "unet.") is weights


def test_noise_of_training_follows_the_networks_schedule() -> None:
    short = UNet(UNET.model_copy(update={"cond_channels": None, "beta_end": 0.01446}))
    alpha_bar = DenoisingLoss(short).alpha_bar
    torch.testing.assert_close(alpha_bar, (1 - linear_betas(beta_end=0.01446)).cumprod(0).float())
    whole = DenoisingLoss(UNet(UNET.model_copy(update={"cond_channels": None, "beta_end": 0.02}))).alpha_bar
    assert (alpha_bar[-1] / whole[-1]).item() == pytest.approx(16, rel=0.1)


def test_weights_of_noise_levels() -> None:
    network = UNet(UNET.model_copy(update={"cond_channels": None}))
    plain, noisy, p2 = DenoisingLoss(network), DenoisingLoss(network, 10), DenoisingLoss(network, p2_gamma=1.0)
    assert torch.equal(plain.weight, torch.ones(1000))
    for loss in (noisy, p2):
        assert loss.weight.mean().item() == pytest.approx(1)
        assert (loss.weight.diff() >= -1e-7).all()  # noisier levels never weigh less
    assert (noisy.weight.max() / noisy.weight.min()).item() == pytest.approx(10)
    snr = noisy.alpha_bar / (1 - noisy.alpha_bar)
    expected = 1 / (1 + snr)
    torch.testing.assert_close(p2.weight, expected / expected.mean())


def test_a_photo_prior_starts_from_a_unet_of_its_sizes_alone() -> None:
    torch.manual_seed(0)
    trained = UNet(UNET)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter)
    prior = UNet(UNET.model_copy(update={"cond_channels": None, "learn_sigma": True}))
    assert warm_start(prior, trained)
    assert torch.equal(prior.input_blocks[0][0].weight, trained.input_blocks[0][0].weight)  # type: ignore[index]
    assert torch.equal(prior.out[2].weight[:3], trained.out[2].weight)
    assert not prior.out[2].weight[3:].any()
    deeper = UNet(UNET.model_copy(update={"cond_channels": None, "learn_sigma": True, "num_res_blocks": 2}))
    before = {name: value.clone() for name, value in deeper.state_dict().items()}
    assert not warm_start(deeper, trained)
    assert all(torch.equal(value, before[name]) for name, value in deeper.state_dict().items())


def test_the_latent_prior_learns_normalized_codes() -> None:
    z = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * 3 + 7
    config = PretrainConfig(**(QUICK | {"steps": 60, "batch_size": 16, "learning_rate": 3e-3}))
    trainer = LatentTrainer(LatentPrior(tiny_recipe().latent_prior), z, config)
    torch.testing.assert_close(trainer.z * trainer.std + trainer.mean, z)
    assert trainer.z.mean(0).abs().max() < 1e-5
    losses = [trainer.step()["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_views_stay_inside_the_image_and_are_the_items_own() -> None:
    gradient = np.zeros((1, 40, 40, 3), np.uint8)
    gradient[0, ..., 0], gradient[0, ..., 1] = np.arange(40), np.arange(40)[:, None]
    still = CropSampler(gradient, 32, Augmentation(flip=0, zoom=0, shift=0))
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(still.view(0, rng), still.whole(0))
    mirrored = CropSampler(gradient, 32, Augmentation(flip=1, zoom=0, shift=0))
    assert torch.equal(mirrored.view(0, rng), still.whole(0).flip(-1))
    moving = CropSampler(gradient, 32, Augmentation(flip=0, zoom=0.25, shift=1))
    corners = [
        ((moving.view(0, torch.Generator().manual_seed(seed))[:2, 0, 0] + 1) * 127.5).tolist() for seed in range(40)
    ]
    assert max(x for corner in corners for x in corner) <= 9  # 40 - 40 / 1.25 = 8 pixels of room
    assert min(max(corner) for corner in corners) <= 1
    assert len({tuple(corner) for corner in corners}) > 20
    centred = CropSampler(gradient, 32, Augmentation(flip=0, zoom=0.25, shift=0)).view(0, rng)
    assert (centred[0].mean() - centred[1].mean()).abs() < 1e-3
    light = CropSampler(gradient, 32, Augmentation(zoom=0, colour=0.5))
    same, again, other = (light.view(0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(same, again)
    assert not torch.allclose(same, other)
    with pytest.raises(ValueError, match="must be"):
        CropSampler(gradient, 41)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_joined_images_count_on(lengths: list[int]) -> None:
    total = sum(lengths)
    every = np.arange(total)[:, None, None, None] * np.ones((1, 2, 2, 3), int)
    joined = JoinedImages(np.split(every, np.cumsum(lengths)[:-1]))
    assert len(joined) == total
    assert [int(joined[i][0, 0, 0]) for i in range(total)] == list(range(total))
    with pytest.raises(IndexError):
        joined[total]


def test_recipes_have_the_papers_sizes() -> None:
    recipe = RECIPES["ffhq256"]()
    with torch.device("meta"):
        networks = [UNet(recipe.unet), SemanticEncoder(recipe.encoder), LatentPrior(recipe.latent_prior)]
        networks.append(UNet(recipe.photo_prior))
    millions = [round(sum(p.numel() for p in network.parameters()) / 1e6, 1) for network in networks]
    assert millions == [138.3, 30.2, 54.1, 93.6]
    assert recipe.style_levels == (0, 1, 2, 3)
    assert Recipe.model_validate_json(RECIPES["mini64"]().model_dump_json()) == RECIPES["mini64"]()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 32}, "unet.image_size is 16, image_size 32"),
        ({"decode_size": 8}, "decode_size 8 is below"),
        ({"latent_prior": {"channels": 4, "hidden": 8, "num_layers": 2}}, "must be equal"),
        ({"style_levels": (0, 2)}, "style_levels"),
        ({"photo_prior": UNET}, "must be unconditional"),
        ({"agument": {}}, "Extra inputs"),
    ],
)
def test_recipes_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(tiny_recipe().model_dump() | changes)


def test_costs_are_those_of_the_layers() -> None:
    recipe = tiny_recipe()
    cost = training_cost(recipe, "latent_prior")
    linear = [m for m in LatentPrior(recipe.latent_prior).modules() if isinstance(m, torch.nn.Linear)]
    assert cost.parameters == sum(p.numel() for p in LatentPrior(recipe.latent_prior).parameters())
    # Forward, and backward to weights and inputs; the first layers' inputs need no gradient.
    forward = 2 * sum(m.weight.numel() for m in linear)
    assert 2 * forward < cost.flops_per_image < 3 * forward
    assert training_cost(recipe, "diffae").flops_per_image > training_cost(recipe, "photo_prior").flops_per_image
    config = PretrainConfig(steps=1, batch_size=8, precision="float32")
    assert cost.memory(config, 1) - cost.memory(config, 2) == pytest.approx(4 * cost.activation_bytes_per_image)
    assert math.isfinite(training_cost(recipe, "clip").flops_per_image)


@pytest.mark.slow
def test_a_step_of_ffhq256_fits_and_works() -> None:
    """168.5 M parameters with gradients, moments and averages are 3.4 GB; the peak was 6.0 GiB with one image."""
    recipe = RECIPES["ffhq256"]()
    torch.manual_seed(0)
    config = recipe.diffae_training.model_copy(update={"batch_size": 1, "loaders": 0})
    images = np.random.default_rng(0).integers(0, 255, (1, 288, 288, 3), dtype=np.uint8)
    network = DiffAE(recipe.unet, recipe.encoder)
    trainer = DenoisingTrainer(network, images, config, augment=recipe.augment)
    before = network.unet.input_blocks[0][0].weight.clone()  # type: ignore[index]
    losses = [trainer.step()["loss"] for _ in range(2)]
    assert 0.5 < losses[0] < 2  # the output layer begins at zero: the loss is that of the noise itself
    assert math.isfinite(losses[1])
    # From the second step on: an output layer of zeros passes no gradient.
    assert not torch.equal(before, network.unet.input_blocks[0][0].weight)  # type: ignore[index]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process {peak:.1f} GiB")
    assert peak < 12
