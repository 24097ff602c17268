"""Pictures from networks in training: few steps, for looking at.

Shapes: B pictures [B, 3, S, S] in [-1, 1]. Networks are in evaluation mode.
"""

import torch
from torch import Tensor

from osasis.content import latent_trajectory_end
from osasis.diffusion import Schedule, ddim_decode, ddpm_step, even_timesteps, last, linear_betas
from osasis.networks.diffae import DiffAE
from osasis.networks.latent_prior import LatentPrior
from osasis.networks.unet import UNet
from osasis.noise import starting_noise


def decode(diffae: DiffAE, z: Tensor, rng: torch.Generator, steps: int = 20) -> Tensor:
    """Pictures of ``z`` [B, D] from random noise, by DDIM."""
    config = diffae.unet.config
    noise = starting_noise(config, len(z), rng).to(z.device)
    trajectory = ddim_decode(noise, lambda x, t: diffae.unet(x, t, z), Schedule.ddim(steps, config.beta_end))
    return last((x for x, _ in trajectory), noise)


@torch.no_grad()
def reconstructions(diffae: DiffAE, photos: Tensor, rng: torch.Generator) -> Tensor:
    """Photographs decoded from their z_sem alone."""
    return decode(diffae, diffae.encoder(photos), rng)


@torch.no_grad()
def latent_samples(
    diffae: DiffAE, prior: LatentPrior, mean: Tensor, std: Tensor, count: int, rng: torch.Generator
) -> Tensor:
    """Pictures of z_sem drawn from the latent prior, whose normalization is ``mean`` and ``std`` [D]."""
    device = next(prior.parameters()).device
    z = latent_trajectory_end(prior, torch.randn(count, len(mean), generator=rng).to(device))
    return decode(diffae, z * std.to(device) + mean.to(device), rng)


@torch.no_grad()
def photo_prior_samples(prior: UNet, count: int, rng: torch.Generator, steps: int = 50) -> Tensor:
    """Pictures drawn by the photo prior from noise alone, by DDPM: [count, 3, S, S] in [-1, 1]."""
    schedule = Schedule.spaced(linear_betas(beta_end=prior.config.beta_end), even_timesteps(steps))
    device, size = next(prior.parameters()).device, prior.config.image_size

    def noise() -> Tensor:
        return torch.randn(count, 3, size, size, generator=rng).to(device)

    x = starting_noise(prior.config, count, rng).to(device)
    for i in reversed(range(steps)):
        x = ddpm_step(x, prior(x, schedule.t(i, count, x.device)), schedule, i, noise())
    return x.clamp(-1, 1)
