"""Perceptual distance between images: LPIPS, or its form on the features of a small CLIP."""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from osasis.networks.clip import ClipEncoder


class PerceptualConfig(BaseModel):
    """Which backbone measures the distance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["clip", "lpips"]
    net: Literal["vgg", "alex", "squeeze"] = Field("vgg", description="LPIPS backbone (kind = lpips).")


class PerceptualDistance(nn.Module):
    """``forward(a, b)``: images [B, 3, S, S] in [-1, 1] → distances [B], 0 for equal images."""

    def features(self, images: Tensor) -> list[Tensor]:
        """The feature maps [B, C, h, w] that are compared, from fine to coarse."""
        raise NotImplementedError


class ClipPerceptual(PerceptualDistance):
    """LPIPS without learned weights, on early feature maps of the bundle's CLIP.

    Feature vectors are normalized per pixel; squared differences are averaged over pixels and summed over maps
    (Zhang et al. 2018, Eq. 1, with w = 1).
    """

    def __init__(self, clip: ClipEncoder) -> None:
        super().__init__()
        self._clip = [clip]  # in a list: the weights belong to the bundle's CLIP, not to this module

    @property
    def clip(self) -> ClipEncoder:
        return self._clip[0]

    def features(self, images: Tensor) -> list[Tensor]:
        return self.clip.features(images)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.between(self.features(a), self.features(b))

    @staticmethod
    def between(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distances [B] from feature maps that are known."""
        gaps = []
        for u, v in zip(a, b, strict=True):
            gap = nn.functional.normalize(u.float(), dim=1) - nn.functional.normalize(v.float(), dim=1)
            gaps.append(gap.square().sum(1).mean((1, 2)))
        return torch.stack(gaps).sum(0)


class Lpips(PerceptualDistance):
    """The lpips package's network; weights come from the bundle, nothing is downloaded."""

    def __init__(self, net: str) -> None:
        super().__init__()
        import lpips  # only bundles with torchvision backbones pay for this import

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torchvision, about how the package calls it
            self.lpips = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)

    def features(self, images: Tensor) -> list[Tensor]:
        return list(self.lpips.net(self.lpips.scaling_layer(images)))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.lpips(a, b).flatten()


def build_perceptual(config: PerceptualConfig, clip: ClipEncoder | None) -> PerceptualDistance:
    if config.kind == "lpips":
        return Lpips(config.net)
    if clip is None:
        raise ValueError("a CLIP perceptual distance needs the bundle's CLIP")
    return ClipPerceptual(clip)
