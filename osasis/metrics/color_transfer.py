"""Colour transfer, the baseline of every table of measures: what a style costs nothing to reach."""

import cv2
import numpy as np
import torch
from torch import Tensor


def color_transfer(images: Tensor, reference: Tensor) -> Tensor:
    """Each image with the reference's mean and deviation of every CIELAB channel (Reinhard et al. 2001).

    ``images`` [B, 3, H, W] and ``reference`` [1, 3, h, w] in [-1, 1] → [B, 3, H, W]; colours that sRGB lacks are
    clipped.
    """
    target = _lab(reference[0])
    return torch.stack([_rgb(match_moments(_lab(image), target)) for image in images]).to(images)


def match_moments(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``values`` [H, W, C], shifted and scaled to the channel means and deviations of ``target`` [h, w, C]."""
    centred = values - values.mean((0, 1))
    return centred * (target.std((0, 1)) / np.maximum(values.std((0, 1)), 1e-6)) + target.mean((0, 1))


def _lab(image: Tensor) -> np.ndarray:
    """[3, H, W] in [-1, 1] → [H, W, 3] CIELAB."""
    unit = (image.detach().float().cpu().permute(1, 2, 0).numpy() + 1) / 2
    return cv2.cvtColor(np.ascontiguousarray(unit), cv2.COLOR_RGB2LAB)


def _rgb(lab: np.ndarray) -> Tensor:
    """[H, W, 3] CIELAB → [3, H, W] in [-1, 1]."""
    unit = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return torch.from_numpy(unit).permute(2, 0, 1).clamp(0, 1) * 2 - 1
