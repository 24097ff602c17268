"""A two-alternative test of a perceptual distance: does it call the strong distortion of a picture the larger one?

Pictures are uint8 [H, W, 3]; strengths are chosen so that anybody would agree which of two is the worse.
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from osasis.image import pixels_to_tensor
from osasis.seeding import stable_seed

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two image batches [B, 3, H, W] in [-1, 1] → [B]."""

Distort = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blur(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """``amount``: sigma in 64ths of the side."""
    return cv2.GaussianBlur(image, (0, 0), amount * len(image) / 64)


def noise(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """``amount``: deviation, of 255."""
    return _bytes(image + rng.normal(0, amount, image.shape))


def jpeg(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """``amount``: quality, 1 … 95."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(amount))
    return np.asarray(Image.open(buffer))


def shift(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """``amount``: 64ths of the side, to a random direction of the four diagonals; edges are continued."""
    room = round(amount * len(image) / 64)
    y, x = room + rng.choice([-room, room], 2)
    padded = np.pad(image, ((room, room), (room, room), (0, 0)), mode="edge")
    return padded[y : y + image.shape[0], x : x + image.shape[1]]


def colour(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """``amount``: share by which one channel gains and another loses."""
    gain = rng.permutation([1 + amount, 1.0, 1 - amount])
    return _bytes(image * gain)


DISTORTIONS: dict[str, tuple[Distort, float, float]] = {
    "blur": (blur, 0.5, 2.0),
    "noise": (noise, 5, 35),
    "jpeg": (jpeg, 85, 8),
    "shift": (shift, 1, 6),
    "colour": (colour, 0.05, 0.4),
}
"""Name → function, mild amount, strong amount."""


@torch.no_grad()
def two_alternative(distances: dict[str, Distance], images: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Share of pairs of a mild and a strong distortion, of the same kind or of two kinds, that are ordered rightly.

    Args:
        distances: what to test, by name.
        images: uint8 [N, H, W, 3].

    Returns:
        ``name``: share over all N·25 pairs; ``name/<kind>``: over the pairs whose mild distortion is of that kind.
        Chance is 0.5.
    """
    far = {name: {"mild": [], "strong": []} for name in distances}  # type: dict[str, dict[str, list[Tensor]]]
    clean = pixels_to_tensor(images)
    for kind, (distort, mild, strong) in DISTORTIONS.items():
        for strength, amount in (("mild", mild), ("strong", strong)):
            rngs = [np.random.default_rng(stable_seed(seed, kind, strength, i)) for i in range(len(images))]
            worse = [distort(image, amount, rng) for image, rng in zip(images, rngs, strict=True)]
            spoilt = pixels_to_tensor(np.stack(worse))
            for name, distance in distances.items():
                far[name][strength].append(distance(spoilt, clean))
    figures: dict[str, float] = {}
    for name, by_strength in far.items():
        mild_far, strong_far = (torch.stack(by_strength[strength]) for strength in ("mild", "strong"))
        right = (mild_far[:, None] < strong_far[None]).float()  # [mild kind, strong kind, N]
        figures[name] = right.mean().item()
        figures |= {f"{name}/{kind}": share.item() for kind, share in zip(DISTORTIONS, right.mean((1, 2)), strict=True)}
    return figures


def mean_squares(a: Tensor, b: Tensor) -> Tensor:
    """L2, the distance to beat. [B]"""
    return (a - b).square().mean((1, 2, 3))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
