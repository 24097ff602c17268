"""Noise that sampling begins with."""

import torch
from torch import Tensor

from osasis.networks.unet import UNetConfig


def starting_noise(config: UNetConfig, count: int, rng: torch.Generator) -> Tensor:
    """x_T to decode from: [count, 3, S, S] on the CPU; standard normal, or typical of it (``typical_noise``)."""
    noise = torch.randn(count, 3, config.image_size, config.image_size, generator=rng)
    return typical(noise) if config.typical_noise else noise


def typical(noise: Tensor) -> Tensor:
    """``noise`` [B, C, H, W] shifted and scaled so that every channel has mean 0 and mean square 1, its expectations.

    Group normalization hides both from a UNet. What chance left of them it takes for the picture's, and at the noisiest
    step that is multiplied by the noise-to-signal ratio: a mean of 1/S becomes a tint, half a percent too much stays
    as noise.
    """
    centred = noise - noise.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((2, 3), keepdim=True).sqrt()
