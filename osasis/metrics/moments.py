"""Moments of feature maps [B, C, H, W] → [B, C]."""

from torch import Tensor


def mean(features: Tensor) -> Tensor:
    return features.float().mean((2, 3))


def deviation(features: Tensor) -> Tensor:
    return features.float().std((2, 3))
