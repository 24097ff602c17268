"""CLIP weights: OpenAI's files (TorchScript archives) and open_clip's (state dicts, safetensors)."""

import re
from pathlib import Path

import open_clip
import torch
from pydantic import ValidationError
from torch import Tensor

from osasis.errors import ForeignFile
from osasis.importers.diffae import check_fit
from osasis.importers.pickled import read_checkpoint, tensors_of
from osasis.networks.clip import ClipConfig, ClipEncoder

_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's files hold among the weights."""

_TOWERS = {(768, 32): "ViT-B-32", (768, 16): "ViT-B-16", (1024, 14): "ViT-L-14"}
"""(width, patch) of the image tower → open_clip's name."""


def read_clip(path: Path, name: str | None = None) -> tuple[ClipConfig, dict[str, Tensor]]:
    """Configuration and weights of a CLIP, fed as it was trained: normalized by CLIP's mean and deviation.

    Args:
        name: open_clip's name of the model; None: by the shapes of its image tower. OpenAI's weights were made with the
            quick GELU, which no tensor shows: a file with OpenAI's extra numbers is taken for one of them.

    Raises:
        ForeignFile: not the weights of a CLIP, or not of this one; names the file.
    """
    content = read_checkpoint(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    weights = {re.sub(r"^module\.", "", k): v for k, v in tensors_of(content, path).items()}
    openai = any(key in weights for key in _NOT_WEIGHTS)
    tensors = {f"model.{k}": v for k, v in weights.items() if k not in _NOT_WEIGHTS}
    try:
        if name is None:
            name = _name_of(weights) + ("-quickgelu" if openai else "")
        config = ClipConfig(name=name, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD)
        with torch.device("meta"):
            check_fit(ClipEncoder(config), tensors, name)
    except ValidationError as error:
        raise ForeignFile(f"{path}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    except (ForeignFile, ValueError) as error:
        raise ForeignFile(f"{path}: {error}") from None
    return config, tensors


def _name_of(weights: dict[str, Tensor]) -> str:
    stem = weights.get("visual.conv1.weight")
    if stem is None or stem.ndim != 4:
        raise ForeignFile("visual.conv1.weight is missing: this is not a CLIP")
    key = (stem.shape[0], stem.shape[-1])
    if key not in _TOWERS:
        raise ForeignFile(
            f"an image tower of width {key[0]} with patches of {key[1]} is not known: give the model's name"
        )
    return _TOWERS[key]
