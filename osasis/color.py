"""Colours of a picture as moments, and pictures brought to them."""

from collections.abc import Sequence

import torch
from torch import Tensor

Colors = tuple[tuple[float, float, float], tuple[float, float, float]] | tuple[()]
"""Mean and deviation of red, green and blue, in [-1, 1]; empty: not known."""

GAIN = (0.5, 2.0)
"""How far a channel's deviation is changed at most: what is nearly flat would show its noise."""


def colors_of(image: Tensor) -> Colors:
    """Of one picture [1, 3, H, W]."""
    (mean, deviation) = ([round(v, 4) for v in m.flatten().tolist()] for m in _moments(image))
    return (mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2])


def mixed_colors(parts: Sequence[tuple[Colors, float]]) -> Colors:
    """The weighted sum; not known where one is not."""
    if not all(colors for colors, _ in parts):
        return ()
    mean, deviation = sum(weight * torch.tensor(colors) for colors, weight in parts).tolist()  # type: ignore[union-attr]
    return tuple(mean), tuple(deviation)


def match_colors(images: Tensor, colors: Colors, part: float) -> Tensor:
    """Each of ``images`` [B, 3, H, W] moved by ``part`` of the way to the moments ``colors``, clamped to [-1, 1]."""
    if not (part and colors):
        return images
    wanted, deviations = (images.new_tensor(values)[:, None, None] for values in colors)
    mean, deviation = _moments(images)
    gain = (deviations / deviation.clamp_min(1e-6)).clamp(*GAIN)
    return torch.lerp(images, (images - mean) * gain + wanted, part).clamp(-1, 1)


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 3, 1, 1] each."""
    return images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
