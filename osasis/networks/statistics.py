"""An image tower of feature statistics: a frozen pretrained network, and a learned projection into CLIP's joint space.

What paint a picture is in shows in the moments of shallow features, wherever things are (Gatys et al. 2016; Huang and
Belongie 2017); what a face does shows in a coarse map of deeper ones. Only the projection is trained (locked-image
tuning, Zhai et al. 2022).

Shapes: B images, S side at which the network sees them, C channels of a level.
"""

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from osasis.networks.lite import Lite, LiteName, stage_widths

_EPS = 1e-6


class StatisticsVisionConfig(BaseModel):
    """Sizes of a :class:`StatisticsTower`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: LiteName = Field(description="The pretrained network.")
    image_size: int = Field(gt=0, multiple_of=32, description="Side of the images the network sees, pixels.")
    levels: tuple[int, ...] = Field((0, 1, 2, 4), min_length=1, description="Stages whose statistics are taken.")
    hidden: int = Field(256, gt=0, description="Width of the projection's hidden layer.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the projection while it is trained.")


class StatisticsTower(nn.Module):
    """Images → moments of pixels and features, or their projection. Images are fed in [-1, 1]."""

    MAP_STAGE = 4
    """Stage whose map is kept for the projection, at 1/16 of the side."""
    MAP_CHANNELS = 32

    def __init__(self, config: StatisticsVisionConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.network = Lite(config.network).requires_grad_(False)
        widths = stage_widths(config.network)
        self.squeeze = nn.Conv2d(widths[self.MAP_STAGE], self.MAP_CHANNELS, 1)
        statistics = 2 * (3 + sum(widths[level] for level in config.levels))
        features = statistics + widths[-1] + self.MAP_CHANNELS * (config.image_size // 16) ** 2
        self.project = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, embed_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] → [B, E], not of unit length."""
        return self.joint(images, self.network(images))

    def joint(self, images: Tensor, stages: list[Tensor]) -> Tensor:
        """:meth:`forward` from all stages' maps."""
        parts = [self.statistics(images, [stages[level] for level in self.config.levels])]
        parts += [stages[-1].mean((2, 3)), F.relu(self.squeeze(stages[self.MAP_STAGE])).flatten(1)]
        return self.project(torch.cat([_spread(part) for part in parts], 1))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, C, h, w] of the levels, from fine to coarse."""
        stages = self.network(images, max(self.config.levels) + 1)
        return [stages[level] for level in self.config.levels]

    @staticmethod
    def statistics(images: Tensor, maps: list[Tensor]) -> Tensor:
        """Means and deviations of pixels and maps, each level's over the root of its channels: [B, 2 ΣC]."""
        moments = []
        for level in (images, *maps):
            mean, deviation = moments_of(level)
            moments += [mean / level.shape[1] ** 0.5, deviation / level.shape[1] ** 0.5]
        return torch.cat(moments, 1)


def moments_of(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every channel, [B, C, h, w] → [B, C] each; smooth where a channel is constant."""
    mean = features.mean((2, 3), keepdim=True)
    return mean[..., 0, 0], ((features - mean).square().mean((2, 3)) + _EPS).sqrt()


def _spread(part: Tensor) -> Tensor:
    """Parts of equal weight, whatever their units: scaled to a mean square of 1."""
    return part / part.square().mean(1, keepdim=True).add(_EPS).sqrt()
