"""The loss terms of finetuning (Eq. 12-14), and some beyond the paper. Every term returns a scalar.

E: width of a CLIP embedding; maps: feature maps [B, C, h, w] of one level each, from fine to coarse.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from osasis.networks.statistics import moments_of

_SMOOTH = 1e-8
_LEAST_MEAN = 0.25
"""Of the deviations' length: what the means are measured by where they are shorter, as those of grey pictures are."""
_MOST_PLACES = 16
"""Maps are pooled to this side before their places are compared: all pairs of them are."""


def directional(source_from: Tensor, source_to: Tensor, target_from: Tensor, target_to: Tensor) -> Tensor:
    """1 - cosine between two directions of CLIP space (Eq. 12), mean over the batch.

    Args: embeddings [B, E] or [1, E], unit length; the directions are ``source_to - source_from`` and
        ``target_to - target_from``.
    """
    return (1 - F.cosine_similarity(source_to - source_from, target_to - target_from, dim=-1)).mean()


def clip_cosine(embedding: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of CLIP embeddings [B, E]: the official release's reconstruction."""
    return (1 - F.cosine_similarity(embedding, target, dim=-1)).mean()


def clip_l1(embedding: Tensor, target: Tensor) -> Tensor:
    """L1 of CLIP embeddings [B, E]: the paper's reconstruction."""
    return (embedding - target).abs().mean()


def moments(maps: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Distance of each picture's channel means and deviations from the reference's, by their length; mean over levels.

    ``maps`` of B stylized contents, ``reference`` of one picture (Gatys et al. 2016; Huang and Belongie 2017).
    Distances are not squared: they pull as hard towards a calm picture as towards a wild one, to the end.
    """
    distances = []
    for ours, theirs in zip(maps, reference, strict=True):
        targets = moments_of(theirs)
        least = _LEAST_MEAN * targets[1].norm()
        for moment, target in zip(moments_of(ours), targets, strict=True):
            far = ((moment - target).square().sum(1) + _SMOOTH).sqrt()
            distances.append(far.mean() / target.norm().clamp_min(least))
    return torch.stack(distances).mean()


def colors(images: Tensor, reference: Tensor, directions: Tensor) -> Tensor:
    """Sliced Wasserstein distance of each picture's colours from the reference's (Rabin et al. 2011); their mean.

    ``images`` [B, 3, H, W] and ``reference`` [1, 3, H, W], as many pixels; ``directions`` [K, 3] of unit length.
    """
    ours, theirs = ((directions @ pixels.flatten(2)).sort(-1).values for pixels in (images, reference))
    return ((ours - theirs).square().mean((1, 2)) + _SMOOTH).sqrt().mean()


def self_similarity(maps: Sequence[Tensor], content: Sequence[Tensor], margin: float = 0.0) -> Tensor:
    """Mean squared difference of the cosine similarities between all places of a picture; mean over levels.

    It holds what is alike and what is not, whatever it looks like (Tumanyan et al. 2022, "Splice"). Up to ``margin`` a
    picture's difference costs nothing: new paint alone moves similarities, and to hold that would hold the paint.
    """
    gaps = [(_similarities(a) - _similarities(b)).square().mean((1, 2)) for a, b in zip(maps, content, strict=True)]
    return F.relu(torch.stack(gaps).mean(0) - margin).mean()


def edges(images: Tensor, content: Tensor) -> Tensor:
    """1 - correlation of the luminance gradients of pictures and contents [B, 3, H, W], with their signs."""
    return (1 - F.cosine_similarity(_gradients(images), _gradients(content), dim=-1)).mean()


def _similarities(features: Tensor) -> Tensor:
    """[B, C, h, w] → [B, P, P], P places."""
    if features.shape[-1] > _MOST_PLACES:
        features = F.adaptive_avg_pool2d(features, _MOST_PLACES)
    places = F.normalize(features.flatten(2), dim=1)
    return places.transpose(1, 2) @ places


def _gradients(images: Tensor) -> Tensor:
    """[B, 3, H, W] → [B, 2·(H-2)·(W-2)]: horizontal and vertical differences of the luminance."""
    y = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    across, down = y[:, 1:-1, 2:] - y[:, 1:-1, :-2], y[:, 2:, 1:-1] - y[:, :-2, 1:-1]
    return torch.stack([across, down], 1).flatten(1)
