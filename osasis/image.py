"""Image intake and output: bytes of any usual kind → square pixels → tensor, and back.

Images are PIL RGB in sRGB, 8 bits a channel; tensors are [3, S, S] float32 in [-1, 1].
"""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from osasis.errors import NotFinite
from osasis.imaging.decode import DECODER, FORMATS, MAX_PIXELS, PIXELS_CEILING, decode_image
from osasis.imaging.decode import opened_rgb as upright_rgb
from osasis.imaging.encode import encode_image

__all__ = [
    "DECODER", "FORMATS", "MAX_PIXELS", "PIXELS_CEILING", "FitMode", "FitTransform", "decode_image", "encode_image",
    "encode_png", "fit", "from_levels", "pixels_to_tensor", "to_image", "to_levels", "to_tensor", "unfit",
    "upright_rgb",
]  # fmt: skip

FitMode = Literal["crop", "pad", "squash"]


class FitTransform(BaseModel):
    """How a square was cut from a picture: ``box`` of the upright original became ``target`` of the square."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: FitMode
    size: int
    """Side of the square, pixels."""
    original_width: int
    original_height: int
    """Size of the upright image (after ``orientation`` was applied), pixels."""
    orientation: int = 1
    """EXIF orientation of the file, 1 … 8; already applied."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in the upright original."""
    target: tuple[int, int, int, int]
    """The same region in the square; outside it lies padding."""


def fit(image: Image.Image, size: int, mode: FitMode = "crop") -> tuple[Image.Image, FitTransform]:
    """Scale to ``size`` × ``size``, antialiased.

    Args:
        mode: "crop" takes the largest centred square; "pad" keeps the whole picture, centred, and continues it beyond
            its edges by reflection; "squash" changes its proportions, pixel for pixel as the official release does.
    """
    width, height = image.size
    if mode == "squash":
        box, target = (0, 0, width, height), (0, 0, size, size)
        square = image.resize((size, size), Image.Resampling.BILINEAR)
    elif mode == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        target = (0, 0, size, size)
        square = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    else:
        scale = size / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (size - w) // 2, (size - h) // 2
        box, target = (0, 0, width, height), (left, top, left + w, top + h)
        small = np.asarray(image.resize((w, h), Image.Resampling.LANCZOS))
        margins = ((top, size - h - top), (left, size - w - left), (0, 0))
        square = Image.fromarray(np.pad(small, margins, mode="reflect"))
    transform = FitTransform(
        mode=mode, size=size, original_width=width, original_height=height,
        orientation=image.info.get("orientation", 1), box=box, target=target,
    )  # fmt: skip
    return square, transform


def unfit(square: Image.Image, transform: FitTransform) -> Image.Image:
    """A square's picture back at the scale of the original: the region that was cut from it, without padding."""
    left, top, right, bottom = transform.box
    return square.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=transform.target)


def from_levels(levels: Tensor) -> Tensor:
    """8-bit levels, 0 to 255 → float32 in [-1, 1], the same shape."""
    return levels.float() / 127.5 - 1


def to_levels(values: Tensor) -> Tensor:
    """Values in [-1, 1] → uint8, rounded; what lies outside is clamped."""
    return ((values.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pixels_to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [..., H, W, 3] → float32 [..., 3, H, W] in [-1, 1]."""
    return from_levels(torch.from_numpy(np.array(pixels)).movedim(-1, -3))  # a copy: arrays may be read-only


def to_tensor(image: Image.Image) -> Tensor:
    """[3, H, W] float32 in [-1, 1]."""
    return pixels_to_tensor(np.asarray(image.convert("RGB")))


def to_image(tensor: Tensor) -> Image.Image:
    """From [3, H, W] in [-1, 1]; what lies outside is clamped.

    Raises:
        NotFinite: a pixel is NaN or infinite.
    """
    if not torch.isfinite(tensor).all():
        raise NotFinite("the picture holds pixels that are NaN or infinite")
    return Image.fromarray(to_levels(tensor).permute(1, 2, 0).cpu().numpy())


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes, tagged as sRGB; equal pixels give equal bytes."""
    return encode_image(image)
