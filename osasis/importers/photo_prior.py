"""The photo prior: a guided-diffusion UNet, such as P2-weighting's ``ffhq_p2.pt``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from osasis.errors import ForeignFile
from osasis.importers.diffae import check_fit
from osasis.importers.pickled import read_checkpoint, tensors_of
from osasis.importers.unet import infer_unet
from osasis.networks.unet import UNet, UNetConfig


def read_photo_prior(
    path: Path, image_size: int, *, head_channels: int | None = 64, given: Mapping[str, Any] | None = None
) -> tuple[UNetConfig, dict[str, Tensor]]:
    """Configuration and weights.

    Args:
        head_channels: width of an attention head, which no tensor shows; 64 in the FFHQ model of the release.
        given: UNetConfig fields that override what is inferred.

    Raises:
        ForeignFile: not such a network, or one without a learned variance; names the file.
    """
    tensors = tensors_of(read_checkpoint(path), path)
    try:
        config = infer_unet(
            tensors, image_size, **({"head_channels": head_channels, "dropout": 0.0} | dict(given or {}))
        )
        with torch.device("meta"):
            check_fit(UNet(config), tensors, "photo prior")
    except (ForeignFile, ValidationError, ValueError) as error:
        raise ForeignFile(f"{path}: {error}") from None
    if config.cond_channels is not None:
        raise ForeignFile(f"{path} is conditioned on z (cond_emb_layers): it is a DiffAE, not an unconditional DDPM")
    return config, tensors
