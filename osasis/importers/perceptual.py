"""LPIPS backbones: torchvision's VGG16 and AlexNet. The linear heads come with the lpips package."""

import re
from pathlib import Path
from typing import Literal

from torch import Tensor

from osasis.errors import ForeignFile
from osasis.importers.pickled import read_checkpoint, tensors_of
from osasis.networks.perceptual import Lpips, PerceptualConfig

Net = Literal["vgg", "alex"]

_STEMS: dict[tuple[int, ...], Net] = {(64, 3, 3, 3): "vgg", (64, 3, 11, 11): "alex"}


def read_perceptual(path: Path) -> tuple[PerceptualConfig, dict[str, Tensor]]:
    """The whole distance, its heads included.

    Raises:
        ForeignFile: neither of the two networks; names the file.
    """
    weights = tensors_of(read_checkpoint(path), path)
    stem = weights.get("features.0.weight")
    net = _STEMS.get(tuple(stem.shape)) if stem is not None else None
    if net is None:
        raise ForeignFile(f"{path} is neither torchvision's VGG16 nor its AlexNet: features.0.weight is not theirs")
    distance = Lpips(net)
    state = distance.state_dict()
    features = {k: v for k, v in weights.items() if k.startswith("features.")}
    for name, expected in state.items():
        match = re.fullmatch(r"lpips\.net\.slice\d\.(\d+\.(?:weight|bias))", name)
        if match is None:
            continue
        given = features.pop(f"features.{match.group(1)}", None)
        if given is None or given.shape != expected.shape:
            found = "missing" if given is None else f"of shape {tuple(given.shape)}, not {tuple(expected.shape)}"
            raise ForeignFile(f"{path}: features.{match.group(1)} is {found}; {net} of torchvision is needed")
        state[name] = given
    if features:
        raise ForeignFile(f"{path}: {min(features)} is not part of torchvision's {net}")
    return PerceptualConfig(kind="lpips", net=net), {name: tensor.clone() for name, tensor in state.items()}
