"""Noise schedules, respacing and samplers: DDIM in both directions (Eq. 7, 11) and DDPM (Eq. 9, 10).

Shapes: x is [B, ...] (images [B, 3, S, S] or latents [B, D]); t is [B]; schedules are 1-D float64 over steps.
A *step* i counts the respaced process, a *timestep* ``timesteps[i]`` the original one of T = 1000 that networks see.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat

import torch
from torch import Tensor

T = 1000
"""Length of the unspaced process."""
BETA_END = 0.02
"""Last beta of DDPM's linear schedule, which the paper's networks were trained on."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, timesteps [B]) → the network's output, usually predicted noise."""


def linear_betas(steps: int = T, beta_end: float = BETA_END) -> Tensor:
    """DDPM's linear schedule, 1e-4 … ``beta_end`` over T; steeper if shorter, to end as noisy. [steps] float64."""
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * beta_end, steps, dtype=torch.float64)


def cosine_betas(steps: int = T) -> Tensor:
    """Improved DDPM's cosine schedule. [steps] float64."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = ((t + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def constant_betas(beta: float = 0.008) -> Tensor:
    """DiffAE's schedule for the latent process. [T] float64."""
    return torch.full((T,), beta, dtype=torch.float64)


def ddim_timesteps(steps: int, length: int = T) -> list[int]:
    """Integer stride over the process, as DDIM's ``ddimN``.

    Raises:
        ValueError: no integer stride gives exactly ``steps`` timesteps.
    """
    for stride in range(1, length):
        spaced = range(0, length, stride)
        if len(spaced) == steps:
            return list(spaced)
    raise ValueError(f"no integer stride over {length} gives exactly {steps} steps; try 5, 10, 20, 25, 50, 100 or 200")


def even_timesteps(steps: int, first: int = 0, length: int = T) -> list[int]:
    """Fractional stride over ``length`` timesteps from ``first``, both ends included, as guided-diffusion respaces.

    Raises:
        ValueError: more steps than timesteps.
    """
    if not 0 < steps <= length:
        raise ValueError(f"cannot respace {length} timesteps to {steps}")
    stride = (length - 1) / (steps - 1) if steps > 1 else 1.0
    # Summed up, not multiplied: where a timestep falls between two, the sum's rounding error decides.
    return [first + round(position) for position in accumulate(repeat(stride, steps - 1), initial=0.0)]


def respaced_timesteps(respacing: str, length: int = T) -> list[int]:
    """guided-diffusion's ``timestep_respacing``: "" (all), "ddimN", "N", or "N1,N2,…" for equal parts of the process.

    Raises:
        ValueError: not such a word, or impossible.
    """
    if not respacing:
        return list(range(length))
    if respacing.startswith("ddim"):
        return ddim_timesteps(int(respacing.removeprefix("ddim")), length)
    counts = [int(count) for count in respacing.split(",")]
    timesteps: list[int] = []
    first = 0
    for i, count in enumerate(counts):
        size = length // len(counts) + (i < length % len(counts))
        timesteps += even_timesteps(count, first, size)
        first += size
    return sorted(set(timesteps))


@dataclass(frozen=True)
class Schedule:
    """A (respaced) noise schedule: ``alpha_bar[i]`` belongs to ``timesteps[i]``."""

    timesteps: tuple[int, ...]
    alpha_bar: Tensor
    """[N] float64, cumulative product of 1 - beta at the kept timesteps."""

    @staticmethod
    def spaced(betas: Tensor, timesteps: list[int]) -> "Schedule":
        """Keep ``timesteps`` of the process with these ``betas`` ([T])."""
        return Schedule(tuple(timesteps), (1 - betas).cumprod(0)[timesteps])

    @staticmethod
    def ddim(steps: int, beta_end: float = BETA_END) -> "Schedule":
        """The image process respaced to ``steps``; ``beta_end`` as the network was trained (UNetConfig)."""
        return Schedule.spaced(linear_betas(beta_end=beta_end), ddim_timesteps(steps))

    def __len__(self) -> int:
        return len(self.timesteps)

    def alpha_bar_at(self, i: int) -> float:
        """alpha_bar of step ``i``; 1 before the first step (clean), 0 after the last (pure noise)."""
        if i < 0:
            return 1.0
        return float(self.alpha_bar[i]) if i < len(self) else 0.0

    def t(self, i: int, batch: int, device: torch.device) -> Tensor:
        """Timestep of step ``i`` for a whole batch: [B] int64."""
        return torch.full((batch,), self.timesteps[i], dtype=torch.long, device=device)

    def steps_to(self, t0_ratio: float) -> int:
        """Number of steps up to t0 = t0_ratio · T."""
        return int(t0_ratio * len(self))


def predict_x0(x_t: Tensor, eps: Tensor, alpha_bar: float, clamp: bool = True) -> Tensor:
    """x0 from predicted noise (Eq. 4), optionally clamped to [-1, 1]."""
    x0 = (x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    return x0.clamp(-1, 1) if clamp else x0


def ddim_move(x_t: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_to: float) -> Tensor:
    """Deterministic DDIM step from noise level ``alpha_bar`` to ``alpha_bar_to``, either direction (Eq. 7, 11)."""
    eps = (x_t - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
    return alpha_bar_to**0.5 * x0 + (1 - alpha_bar_to) ** 0.5 * eps


def ddim_encode(
    x0: Tensor, denoise: Denoiser, schedule: Schedule, stop: int | None = None, *, clamp: bool = True
) -> Iterator[Tensor]:
    """Forward DDIM (Eq. 7): yields x after each of the first ``stop`` steps; the last is x_t0."""
    x = x0
    for i in range(len(schedule) if stop is None else stop):
        alpha_bar = schedule.alpha_bar_at(i)
        eps = denoise(x, schedule.t(i, len(x), x.device)).to(x.dtype)
        x = ddim_move(x, predict_x0(x, eps, alpha_bar, clamp), alpha_bar, schedule.alpha_bar_at(i + 1))
        yield x


def ddim_decode(
    x_t: Tensor, denoise: Denoiser, schedule: Schedule, start: int | None = None, *, clamp: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Reverse DDIM (Eq. 11): from step ``start`` - 1 down to 0, yields (x, predicted x0) after each."""
    x = x_t
    for i in reversed(range(len(schedule) if start is None else start)):
        alpha_bar = schedule.alpha_bar_at(i)
        eps = denoise(x, schedule.t(i, len(x), x.device)).to(x.dtype)
        x0 = predict_x0(x, eps, alpha_bar, clamp)
        x = ddim_move(x, x0, alpha_bar, schedule.alpha_bar_at(i - 1))
        yield x, x0


def asked_steps(steps: Sequence[int], forwards: int) -> set[int]:
    """``forwards`` of the steps, the first included; closest together at the clean end, where most is decided.

    ``steps`` begin or end there.
    """
    rising = sorted(steps)
    count = len(rising)
    if steps[0] > steps[-1]:
        return {rising[max(1, round(count * (k / forwards) ** 1.5)) - 1] for k in range(1, forwards + 1)}
    return {rising[round(count * (k / forwards) ** 1.5)] for k in range(forwards)}


def sparse_ddim(
    x: Tensor,
    denoise: Denoiser,
    schedule: Schedule,
    steps: Sequence[int],
    asked: Collection[int],
    *,
    clamp: bool = True,
    push: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """DDIM's own steps, from the first of ``steps`` to the last, in either direction, asking the network at some alone.

    Between them the noise is extrapolated from the last two answers, linearly in sigma = sqrt((1 - alpha_bar) /
    alpha_bar), as Adams and Bashforth do: DDIM is Euler's method for d(x / sqrt(alpha_bar)) = eps d(sigma). So it
    converges to the path of DDIM with all these steps, not to that of the ODE.

    Args:
        asked: steps at which the network is asked; the first is one of them.
        push: what to add to x before a step.
    """
    answers: deque[tuple[float, Tensor]] = deque(maxlen=2)  # sigma, noise
    for i, to in pairwise(steps):
        alpha_bar = schedule.alpha_bar_at(i)
        sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
        if push:
            x = x + push(i)
        if i in asked:
            x0 = predict_x0(x, denoise(x, schedule.t(i, len(x), x.device)).to(x.dtype), alpha_bar, clamp)
            answers.append((sigma, (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5))
        else:
            (before, eps_before), (at, eps_at) = answers[0], answers[-1]
            slope = (sigma - at) / (at - before) if len(answers) == 2 else 0.0
            x0 = predict_x0(x, eps_at + slope * (eps_at - eps_before), alpha_bar, clamp)
        x = ddim_move(x, x0, alpha_bar, schedule.alpha_bar_at(to))
    return x


def last(trajectory: Iterator[Tensor], default: Tensor) -> Tensor:
    """The end of a trajectory; ``default`` where it has no step."""
    end = deque(trajectory, maxlen=1)
    return end[0] if end else default


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: float | Tensor) -> Tensor:
    """Forward DDPM, q(x_t | x_0) (Eq. 9)."""
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


def ddpm_step(
    x_t: Tensor,
    output: Tensor,
    schedule: Schedule,
    i: int,
    noise: Tensor,
    *,
    clamp: bool = True,
    predicts_x0: bool = False,
) -> Tensor:
    """Reverse DDPM (Eq. 10), from step ``i`` to ``i`` - 1.

    Args:
        output: [B, 6, S, S], predicted noise and variance logits v in [-1, 1]: the log-variance is interpolated
            between the posterior's (v = -1) and beta's (v = 1), Improved DDPM Eq. 15. Without logits, [B, 3, S, S], the
            variance is beta.
        predicts_x0: the network predicts x0 instead of noise.
    """
    channels = x_t.shape[1]
    predicted, v = output.to(x_t.dtype).split([channels, output.shape[1] - channels], dim=1)
    alpha_bar, alpha_bar_prev = schedule.alpha_bar_at(i), schedule.alpha_bar_at(i - 1)
    beta = 1 - alpha_bar / alpha_bar_prev
    if predicts_x0:
        x0 = predicted.clamp(-1, 1) if clamp else predicted
    else:
        x0 = predict_x0(x_t, predicted, alpha_bar, clamp)
    mean = (beta * alpha_bar_prev**0.5 * x0 + (1 - alpha_bar_prev) * (1 - beta) ** 0.5 * x_t) / (1 - alpha_bar)
    if i == 0:
        return mean
    log_beta = math.log(beta)
    if not v.shape[1]:
        return mean + math.exp(0.5 * log_beta) * noise
    log_posterior = log_beta + math.log((1 - alpha_bar_prev) / (1 - alpha_bar))
    fraction = (v + 1) / 2
    log_variance = fraction * log_beta + (1 - fraction) * log_posterior
    return mean + torch.exp(0.5 * log_variance) * noise
