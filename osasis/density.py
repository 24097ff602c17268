"""How usual a picture is to the base: of low density is what a stochastic reconstruction does not bring back.

The paper's selection of low- and high-density images: the same z_sem, x_T drawn from N(0, I), and the perceptual
distance (LPIPS) of what comes out to the original. A large distance means low density.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from osasis.base import Base
from osasis.diffusion import ddim_decode, last
from osasis.noise import starting_noise
from osasis.seeding import generator
from osasis.settings import DensityConfig


@torch.no_grad()
def stochastic_reconstruction(base: Base, images: Tensor, keys: Sequence[object], steps: int, seed: int) -> Tensor:
    """The pictures from their z_sem alone, x_T ~ N(0, I). [B, 3, S, S] in [-1, 1], the same shape back.

    ``keys``: B names of the pictures; each seeds its own noise, independent of the rest of the batch.
    """
    z = base.diffae.encoder(images)
    noise = [starting_noise(base.spec.unet, 1, generator(seed, "density", key)) for key in keys]
    x_T = torch.cat(noise).to(images.device)
    steps_done = ddim_decode(x_T, lambda x, t: base.eps(x, t, z), base.ddim(steps))
    return last((x for x, _ in steps_done), x_T).clamp(-1, 1)


@torch.no_grad()
def density_distance(base: Base, images: Tensor, keys: Sequence[object], config: DensityConfig) -> Tensor:
    """Mean perceptual distance of stochastic reconstructions to ``images`` [B, 3, S, S] → [B]; large is low density.

    Raises:
        BaseError: the base has no perceptual distance.
    """
    total = torch.zeros(len(images), device=images.device)
    for draw in range(config.draws):
        named = [(draw, key) for key in keys]
        rebuilt = stochastic_reconstruction(base, images, named, config.steps, config.seed)
        total = total + base.perceptual(rebuilt, images)
    return total / config.draws
