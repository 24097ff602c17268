"""Samplers against denoisers known in closed form, and the quick group normalization against PyTorch's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from osasis.diffusion import Schedule, T, ddim_decode, ddim_encode, ddim_timesteps, linear_betas
from osasis.networks.layers import GroupNorm
from osasis.noise import starting_noise
from osasis.seeding import generator
from tests.support.tiny import UNET

DATA_STD = 0.2


def gaussian_eps(x: Tensor, t: Tensor) -> Tensor:
    """The exact noise prediction where the data are N(0, DATA_STD²)."""
    level = (1 - linear_betas()).cumprod(0)[t][:, None].to(x.dtype)
    return (1 - level).sqrt() * x / (level * DATA_STD**2 + 1 - level)


@pytest.mark.parametrize(("steps", "tolerance"), [(50, 0.15), (100, 0.08), (200, 0.05)])
def test_sampling_gives_the_data_distribution(steps: int, tolerance: float) -> None:
    x = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    *_, (x, _) = ddim_decode(x, gaussian_eps, Schedule.ddim(steps), clamp=False)
    assert x.std().item() == pytest.approx(DATA_STD, rel=tolerance)


def test_round_trips_converge_with_the_number_of_steps() -> None:
    x0 = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)[:, None]

    def error(steps: int) -> float:
        schedule = Schedule.ddim(steps)
        *_, x_t0 = ddim_encode(x0, gaussian_eps, schedule, steps // 2, clamp=False)
        *_, (x, _) = ddim_decode(x_t0, gaussian_eps, schedule, steps // 2 + 1, clamp=False)
        return (x - x0).abs().max().item()

    errors = [error(steps) for steps in (10, 20, 50, 100, 200)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_sampling_begins_with_plain_or_with_typical_noise() -> None:
    config = UNET.model_copy(update={"image_size": 64})
    plain = starting_noise(config, 3, generator("noise"))
    assert torch.equal(plain, torch.randn(3, 3, 64, 64, generator=generator("noise")))
    noise = starting_noise(config.model_copy(update={"typical_noise": True}), 3, generator("noise"))
    torch.testing.assert_close(noise.mean((2, 3)), torch.zeros(3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(noise.square().mean((2, 3)), torch.ones(3, 3))
    assert (noise - plain).abs().max() < 0.2  # it is the same noise


@given(st.integers(1, T))
def test_every_count_of_steps_is_exact_or_refused(steps: int) -> None:
    possible = any(len(range(0, T, stride)) == steps for stride in range(1, T))
    if not possible:
        with pytest.raises(ValueError, match=f"exactly {steps} steps"):
            ddim_timesteps(steps)
        return
    timesteps = ddim_timesteps(steps)
    assert len(timesteps) == steps
    assert timesteps[0] == 0
    assert timesteps[-1] < T


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_group_norm_equals_pytorch(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    ours = GroupNorm(8, 32)
    torch.nn.init.normal_(ours.weight)
    plain = torch.nn.GroupNorm(8, 32).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 32, 8, 8).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    x64 = x.detach().double().requires_grad_()
    grad = torch.randn(3, 32, 8, 8).to(dtype).to(memory_format=torch.channels_last)
    y, y64 = ours(x), plain(x64)
    y.backward(grad)
    y64.backward(grad.double())
    assert x.grad is not None
    assert x64.grad is not None
    for a, b in [
        (y, y64),
        (x.grad, x64.grad),
        (ours.weight.grad, plain.weight.grad),
        (ours.bias.grad, plain.bias.grad),
    ]:
        assert a is not None
        assert b is not None
        assert (a.double() - b).norm() / b.norm() < tolerance
