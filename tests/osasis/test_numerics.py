"""Gradients against finite differences, samplers against closed forms, on the smallest networks."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from osasis.content import Content
from osasis.diffusion import (
    Schedule,
    add_noise,
    asked_steps,
    ddim_decode,
    ddim_encode,
    ddpm_step,
    linear_betas,
    sparse_ddim,
)
from osasis.finetune import Finetuner, Reference
from osasis.networks.diffae import DiffAE
from osasis.networks.perceptual import PerceptualDistance
from osasis.networks.unet import UNet
from osasis.precision import computing, weights_dtype
from osasis.settings import TrainConfig
from tests.support.tiny import SIZE, SPEC


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


class _Distance(PerceptualDistance):
    def features(self, images: Tensor) -> list[Tensor]:
        fine = torch.tanh(torch.nn.functional.conv2d(images, rand(5, 3, 3, 3, seed=8)))
        return [fine, torch.nn.functional.avg_pool2d(fine, 2)]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3))


def clip(x: Tensor) -> Tensor:
    return torch.tanh(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) @ rand(48, 6, seed=9))


def tiny_finetuner(**settings: Any) -> tuple[Finetuner, Content]:
    """In float64, with every weight of the networks at work."""
    torch.manual_seed(0)
    unet = UNet(SPEC.unet).double()
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    style, photo = (rand(1, 3, SIZE, SIZE, seed=s) for s in (1, 2))
    reference = Reference(style, photo, rand(1, 12, seed=3), rand(1, 12, seed=4), rand(1, 3, SIZE, SIZE, seed=5))
    content = Content(*(rand(2, *shape, seed=6) for shape in ((3, SIZE, SIZE), (12,), (3, SIZE, SIZE))))
    # Clamping has kinks, where no finite difference is right.
    config = TrainConfig(decode_steps=5, dropout=False, clamp=False, **settings)
    return Finetuner(unet, reference, config, [clip], [_Distance()]), content


def loss_of(finetuner: Finetuner, content: Content, i: int) -> Tensor:
    x = torch.cat([content.x_t0, finetuner.reference.x_t0])
    x0, _ = finetuner.predict(x, i, content)
    weights = finetuner.config.weights.model_dump()
    terms = finetuner.terms(x0[:-1], x0[-1:], finetuner._targets(content))
    assert terms.keys() == {name for name, weight in weights.items() if weight}
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


BEYOND_THE_PAPER = {"style_moments": 2.0, "style_colors": 3.0, "self_similarity": 5.0, "edges": 1.0}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"spn": "plain", "spn_style": "lambda", "clip_reconstruction": "l1"},
        {"weights": BEYOND_THE_PAPER | {"cross_domain": 0}},
    ],
)
def test_the_gradient_of_a_finetuning_step_is_that_of_finite_differences(settings: dict[str, Any]) -> None:
    finetuner, content = tiny_finetuner(**settings)
    loss_of(finetuner, content, 2).backward()
    step, checked = 1e-6, 0
    for network in (finetuner.unet, finetuner.spn):
        for seed, parameter in list(enumerate(network.parameters()))[::3]:
            assert parameter.grad is not None
            direction = rand(*parameter.shape, seed=seed)
            with torch.no_grad():
                up, down = 0.0, 0.0
                parameter += step * direction
                up = loss_of(finetuner, content, 2).item()
                parameter -= 2 * step * direction
                down = loss_of(finetuner, content, 2).item()
                parameter += step * direction
            numeric = (up - down) / (2 * step)
            analytic = (parameter.grad * direction).sum().item()
            assert analytic == pytest.approx(numeric, rel=1e-5, abs=1e-6)
            checked += abs(numeric) > 1e-4
    assert checked > 20  # most parameters do something


def test_an_update_moves_weights_by_the_gradient_and_only_from_this_step() -> None:
    """Latents are detached between reverse steps: the second update's gradient is that of its own step alone."""
    finetuner, content = tiny_finetuner(learning_rate=1e-4)
    x = torch.cat([content.x_t0, finetuner.reference.x_t0])
    targets = finetuner._targets(content)
    x, _ = finetuner.update(x, 2, content, targets)
    assert not x.requires_grad
    alone, spn = copy.deepcopy(finetuner.unet), copy.deepcopy(finetuner.spn)
    finetuner.update(x, 1, content, targets)
    after = [p.grad.clone() for p in finetuner.unet.parameters() if p.grad is not None]
    finetuner.unet, finetuner.spn = alone, spn
    for parameter in alone.parameters():
        parameter.grad = None
    x0, _ = finetuner.predict(x, 1, content)
    weights = finetuner.config.weights.model_dump()
    terms = finetuner.terms(x0[:-1], x0[-1:], targets)
    torch.stack([weights[name] * value for name, value in terms.items()]).sum().backward()
    for ours, theirs in zip(after, (p.grad for p in alone.parameters()), strict=True):
        assert theirs is not None
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


# --- closed forms: where the data are N(m, s²), noise prediction and every posterior are linear

MEAN, STD = 0.3, 0.2


def gaussian_eps(x: Tensor, t: Tensor) -> Tensor:
    level = (1 - linear_betas()).cumprod(0)[t][:, None]
    return (1 - level).sqrt() * (x - level.sqrt() * MEAN) / (level * STD**2 + 1 - level)


def flow(x: Tensor, level: float, to: float) -> Tensor:
    """Where the ODE that DDIM discretizes takes x: the same quantile of another Gaussian."""
    spread, spread_to = ((a * STD**2 + 1 - a) ** 0.5 for a in (level, to))
    return to**0.5 * MEAN + spread_to / spread * (x - level**0.5 * MEAN)


def test_ddim_converges_to_the_solution_of_its_ode_in_first_order() -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = {}
    for steps in (50, 100, 200, 500):
        schedule = Schedule.ddim(steps)
        start = steps // 2
        level = schedule.alpha_bar_at(start)
        *_, (end, _) = ddim_decode(x, gaussian_eps, schedule, start + 1, clamp=False)
        errors[steps] = (end - flow(x, level, 1.0)).abs().max().item()
    orders = [
        torch.log(torch.tensor(errors[a] / errors[b])) / torch.log(torch.tensor(b / a))
        for a, b in ((50, 100), (100, 200), (200, 500))
    ]
    assert all(0.7 < order < 1.5 for order in orders), (errors, orders)


def test_encode_and_decode_come_back_in_first_order() -> None:
    x0 = torch.linspace(-0.5, 0.9, 9, dtype=torch.float64)[:, None]
    errors = {}
    for steps in (50, 100, 200, 500):
        schedule = Schedule.ddim(steps)
        *_, x = ddim_encode(x0, gaussian_eps, schedule, steps // 2, clamp=False)
        *_, (back, _) = ddim_decode(x, gaussian_eps, schedule, steps // 2 + 1, clamp=False)
        errors[steps] = (back - x0).abs().max().item()
    for a, b in ((50, 100), (100, 200), (200, 500)):
        assert errors[a] / errors[b] > 0.7 * b / a, errors


@pytest.mark.parametrize("ends", [(0, 60), (60, -1)])
def test_sparse_ddim_converges_to_the_whole_path_in_second_order(ends: tuple[int, int]) -> None:
    x, schedule = rand(4, 5, seed=1), Schedule.ddim(100)
    steps = range(*ends, 1 if ends[0] < ends[1] else -1)
    steps = [*steps, ends[1]]

    def path(asked: set[int]) -> Tensor:
        return sparse_ddim(x, gaussian_eps, schedule, steps, asked, clamp=False)

    whole = path(set(steps[:-1]))
    if ends[0] == 0:
        *_, end = ddim_encode(x, gaussian_eps, schedule, ends[1], clamp=False)
        assert torch.equal(end, whole)
    errors = [(path(asked_steps(steps[:-1], forwards)) - whole).norm().item() for forwards in (6, 12, 24)]
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


def test_steps_asked_are_closest_together_at_the_clean_end() -> None:
    assert sorted(asked_steps(range(40), 5)) == [0, 4, 10, 19, 29]
    assert sorted(asked_steps(range(20, -1, -1), 4)) == [2, 6, 13, 20]
    assert asked_steps(range(4), 9) == {0, 1, 2, 3}


@pytest.mark.parametrize("fraction", [-1.0, 0.0, 1.0])
def test_ddpm_steps_have_the_moments_of_the_posterior(fraction: float) -> None:
    """q(x_{t-1} | x_t, x_0) of a known x_0: mean and variance in closed form, the variance between its two bounds."""
    schedule = Schedule.spaced(linear_betas(), list(range(0, 1000, 20)))
    i, x0 = 20, 0.37
    a, before = schedule.alpha_bar_at(i), schedule.alpha_bar_at(i - 1)
    noise = torch.randn(200_000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = torch.full_like(noise, 0.81)
    eps = (x_t - a**0.5 * x0) / (1 - a) ** 0.5
    drawn = ddpm_step(x_t, torch.cat([eps, torch.full_like(eps, fraction)], 1), schedule, i, noise)
    beta = 1 - a / before
    mean = (before**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - before) * 0.81) / (1 - a)
    low, high = beta * (1 - before) / (1 - a), beta
    variance = low ** ((1 - fraction) / 2) * high ** ((1 + fraction) / 2)
    assert drawn.mean().item() == pytest.approx(mean, abs=5 * (variance / 200_000) ** 0.5)
    assert drawn.var().item() == pytest.approx(variance, rel=0.02)
    if fraction == 1:
        assert torch.equal(drawn, ddpm_step(x_t, eps, schedule, i, noise))  # without logits the variance is beta


def test_ancestral_sampling_gives_the_data_distribution() -> None:
    schedule = Schedule.spaced(linear_betas(), list(range(1000)))
    rng = torch.Generator().manual_seed(1)

    def randn() -> Tensor:
        return torch.randn(2000, 1, 1, 1, generator=rng, dtype=torch.float64)

    x = randn()
    for i in reversed(range(len(schedule))):
        eps = gaussian_eps(x.flatten(1), schedule.t(i, len(x), x.device))[..., None, None]
        x = ddpm_step(x, torch.cat([eps, torch.full_like(eps, -1.0)], 1), schedule, i, randn(), clamp=False)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x.std().item() == pytest.approx(STD, rel=0.06)


def test_noising_has_the_moments_it_should() -> None:
    noise = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    x = add_noise(torch.tensor(0.5), noise, 0.36)
    assert x.mean().item() == pytest.approx(0.3, abs=0.01)
    assert x.std().item() == pytest.approx(0.8, rel=0.01)


def test_bf16_keeps_weights_and_latents_in_float32() -> None:
    torch.manual_seed(0)
    network = DiffAE(SPEC.unet, SPEC.encoder)
    x, t, z = torch.randn(2, 3, SIZE, SIZE), torch.tensor([5, 900]), torch.randn(2, 12)
    torch.nn.init.normal_(network.unet.out[2].weight, std=0.1)
    exact = network.unet(x, t, z)
    with computing("bf16", torch.device("cpu")):
        rounded = network.unet(x, t, z)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - exact).norm() / exact.norm() < 0.03
    assert weights_dtype("bf16") == torch.float32
    assert weights_dtype("float64") == torch.float64
