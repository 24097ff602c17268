"""What is measured of a pair: a photograph and its picture in a style."""

from dataclasses import dataclass

import torch
from torch import Tensor

from osasis.metrics.networks import MetricNetworks
from osasis.metrics.pixels import gradient_correlation, structural_similarity

PAIR_METRICS = (
    "artfid", "lpips", "feature_distance", "id_similarity", "structure_distance", "style_distance", "ssim", "edges",
)  # fmt: skip
"""``feature_distance``: squared distance of the FID network's features to the reference's. Its mean over photographs
is their FID to the reference alone, a distribution without spread; ``artfid`` is (1 + lpips)(1 + feature_distance).
"""

BETTER = {
    "artfid": "low", "lpips": "low", "fid": "low", "feature_distance": "low", "id_similarity": "high",
    "structure_distance": "low", "style_distance": "low", "ssim": "high", "edges": "high",
}  # fmt: skip


@dataclass(frozen=True)
class PairMeasures:
    """``values``: [B] for each of :data:`PAIR_METRICS`; ``features`` [B, D], for FID over many pairs."""

    values: dict[str, Tensor]
    features: Tensor


@torch.no_grad()
def measure_pairs(networks: MetricNetworks, photos: Tensor, results: Tensor, reference: Tensor) -> PairMeasures:
    """``results`` of ``photos`` [B, 3, S, S] in the style of ``reference`` [1, 3, S, S], all in [-1, 1]."""
    features = networks.features(torch.cat([results, reference])).float()
    features, theirs = features[:-1], features[-1]
    lpips = networks.lpips(photos, results).float()
    distance = (features - theirs).square().sum(1)
    values = {
        "artfid": (1 + lpips) * (1 + distance),
        "lpips": lpips,
        "feature_distance": distance,
        "id_similarity": networks.identity(photos, results),
        "structure_distance": networks.structure(photos, results),
        "style_distance": networks.style(results, reference),
        "ssim": structural_similarity(photos, results),
        "edges": gradient_correlation(photos, results),
    }
    return PairMeasures(values, features)
