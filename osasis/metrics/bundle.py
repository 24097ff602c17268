"""Style distance in the features of a base bundle or another network; the catalog's metrics are of this kind."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from osasis.base import Base
from osasis.metrics.moments import deviation, mean


def feature_maps(base: Base, images: Tensor) -> list[Tensor]:
    """The bundle's maps [B, C, h, w] of images, from fine to coarse: CLIP's where it has some, or LPIPS's."""
    clip = base.spec.clip and base.clip.has_features
    return list(base.clip.features(images) if clip else base.perceptual.features(images))


def style_distance(images: Tensor, reference: Tensor, features: Base | Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
    """Distance of style: first and second moments of feature maps, and of colour.

    ``images`` [B, 3, S, S], ``reference`` [1, 3, S, S] in [-1, 1] → [B]; 0 for equal statistics. Moments forget where
    things are, so that another person in the same paint is near (Gatys et al. 2016; Huang and Belongie 2017).

    Args:
        features: gives the maps; a base's are :func:`feature_maps`.
    """
    total = torch.zeros(len(images), device=images.device)
    of = (lambda x: feature_maps(features, x)) if isinstance(features, Base) else features
    maps = [*zip([images, *of(images)], [reference, *of(reference)], strict=True)]
    for ours, theirs in maps:
        for moment in (mean, deviation):
            u, v = moment(ours), moment(theirs)
            total = total + (u - v).norm(dim=1) / v.norm(dim=1).clamp_min(1e-6)
    return total / (2 * len(maps))
