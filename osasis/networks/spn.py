"""The structure-preserving network (SPN): 1×1 convolutions on the photograph (paper, section 3.3)."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from osasis.networks.layers import GroupNorm, timestep_embedding

WIDTH = 128
"""Channels of the release's, in its first and last layer; twice as many between them, four times for time."""


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(math.gcd(32, channels), channels)


class _TimeBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, emb_channels: int) -> None:
        super().__init__()
        self.pre_layer = nn.Sequential(_norm(c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 1), _norm(c_out))
        self.emb_layer = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * c_out))
        self.post_layer = nn.Sequential(nn.SiLU(), nn.Conv2d(c_out, c_out, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.emb_layer(emb)[:, :, None, None].chunk(2, dim=1)
        return self.post_layer(self.pre_layer(x) * (1 + scale) + shift)


class TimeSPN(nn.Module):
    """SPN conditioned on time, the official release's default (873,347 parameters)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        emb = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.in_layer = nn.Sequential(nn.Conv2d(3, width, 1))
        self.block1 = _TimeBlock(width, 2 * width, emb)
        self.block2 = _TimeBlock(2 * width, width, emb)
        self.out_layer = nn.Sequential(nn.Conv2d(width, 3, 1))

    @property
    def output(self) -> nn.Module:
        """The last layer."""
        return self.out_layer

    def forward(self, image: Tensor, t: Tensor) -> Tensor:
        """``image`` [B, 3, S, S] in [-1, 1], ``t`` [B] → [B, 3, S, S], to be added to x_t."""
        emb = self.time_embed(timestep_embedding(t, self.width).to(image.dtype))
        return self.out_layer(self.block2(self.block1(self.in_layer(image), emb), emb))


class PlainSPN(nn.Module):
    """SPN without time, as the paper names it (67,843 parameters)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, width, 1), _norm(width), nn.SiLU()),
            *(nn.Conv2d(width, 2 * width, 1), _norm(2 * width), nn.SiLU()),
            *(nn.Conv2d(2 * width, width, 1), _norm(width), nn.SiLU()),
            nn.Conv2d(width, 3, 1),
        )

    @property
    def output(self) -> nn.Module:
        """The last layer."""
        return self.layers[-1]

    def forward(self, image: Tensor, t: Tensor | None = None) -> Tensor:
        """As :class:`TimeSPN`; ``t`` is accepted and ignored."""
        return self.layers(image)


class MixedSPN(nn.Module):
    """The weighted sum of several SPNs' outputs."""

    def __init__(self, parts: Sequence[tuple[nn.Module, float]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([spn for spn, _ in parts])
        self.weights = [weight for _, weight in parts]

    def forward(self, image: Tensor, t: Tensor) -> Tensor:
        """As :class:`TimeSPN`."""
        outputs = [weight * spn(image, t) for spn, weight in zip(self.parts, self.weights, strict=True)]
        return sum(outputs[1:], outputs[0])


SPN = TimeSPN | PlainSPN


def make_spn(kind: Literal["time", "plain"], width: int = WIDTH) -> SPN:
    return TimeSPN(width) if kind == "time" else PlainSPN(width)
