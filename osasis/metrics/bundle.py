"""Style distance in the features of a base bundle's own networks; the catalog's metrics are of this kind."""

import torch
from torch import Tensor

from osasis.base import Base
from osasis.metrics.moments import deviation, mean


def style_distance(images: Tensor, reference: Tensor, base: Base) -> Tensor:
    """Distance of style: first and second moments of the bundle's feature maps (CLIP's or LPIPS's), and of colour.

    ``images`` [B, 3, S, S], ``reference`` [1, 3, S, S] in [-1, 1] → [B]; 0 for equal statistics. Moments forget where
    things are, so that another person in the same paint is near (Gatys et al. 2016; Huang and Belongie 2017).
    """
    total = torch.zeros(len(images), device=images.device)
    features = base.clip.features if base.spec.clip and base.clip.has_features else base.perceptual.features
    maps = [*zip([images, *features(images)], [reference, *features(reference)], strict=True)]
    for ours, theirs in maps:
        for moment in (mean, deviation):
            u, v = moment(ours), moment(theirs)
            total = total + (u - v).norm(dim=1) / v.norm(dim=1).clamp_min(1e-6)
    return total / (2 * len(maps))
