"""The style image's counterpart in the photographic domain (Eq. 9-10)."""

import torch
from torch import Tensor

from osasis.base import Base
from osasis.diffusion import Schedule, add_noise, ddpm_step, even_timesteps, linear_betas
from osasis.seeding import generator
from osasis.settings import StylePhotoConfig


@torch.no_grad()
def denoised_counterparts(base: Base, style: Tensor, config: StylePhotoConfig, seed: int) -> Tensor:
    """Noise the style image to t0, denoise it with the photo prior: [1, 3, S, S] → [candidates, 3, S, S].

    It is noised to the level of step ``t0_ratio · steps``. The official release denoises from one step below;
    ``matched_t0`` from that very step.
    """
    prior = base.photo_prior
    schedule = Schedule.spaced(linear_betas(beta_end=prior.config.beta_end), even_timesteps(config.steps))
    start = schedule.steps_to(config.t0_ratio)
    count = config.candidates
    rng = generator(seed, "style photo")

    def noise() -> Tensor:
        return torch.randn(count, *style.shape[1:], generator=rng).to(style.device)

    x = add_noise(style.expand(count, -1, -1, -1), noise(), schedule.alpha_bar_at(start))
    for i in reversed(range(start + config.matched_t0)):
        x = ddpm_step(x, prior(x, schedule.t(i, count, x.device)), schedule, i, noise())
    return x.clamp(-1, 1)


@torch.no_grad()
def best_style_photo(base: Base, style: Tensor, config: StylePhotoConfig, seed: int) -> Tensor:
    """The candidate with the least 10·L1 + perceptual distance to the style image. [1, 3, S, S]."""
    candidates = denoised_counterparts(base, style, config, seed)
    l1 = (candidates - style).abs().mean((1, 2, 3))
    distance = 10 * l1 + base.perceptual(candidates, style.expand_as(candidates))
    best = int(distance.argmin())
    return candidates[best : best + 1]
