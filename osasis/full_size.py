"""A square's stylization laid back on the photograph it was cut from, at the photograph's own size or another.

Done in tiles, so that memory is the picture's and not that of its maps.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from osasis.image import FitMode, FitTransform, fit, to_image, to_tensor, unfit
from osasis.upsampling import Detail, Upsampler, band_deviations, octaves

Size = Literal["base", "original"] | Annotated[int, Field(gt=0)]
"""Of an output: the base's square; the whole photograph as it is; or its longer side in pixels, never enlarged."""

FEATHER = 1 / 32
"""Width of the seam where the square ends inside the photograph, in the region's shorter sides."""

_TILE = 1024
_MIDDLE = 512
"""Side up to which texture is looked at, pixels."""

Part = Callable[[Tensor, int, int], Tensor]
"""Tile of the region's photograph [3, h, w], its top, its left → the same stylized."""


Texture = tuple[tuple[float, float, float], ...]
"""Contrast of red, green and blue in each octave of a reference that is finer than its base, the coarsest first."""


def whole_reference(reference: Image.Image, size: int, mode: FitMode) -> Image.Image:
    """The reference cut as for a base of ``size`` pixels, as many octaves larger as it has and anything looks at."""
    return fit(reference, size << octaves(size, min(_MIDDLE, *reference.size)), mode)[0]


def texture_of(reference: Image.Image, size: int, mode: FitMode = "crop") -> Texture:
    """The texture of a reference of a base of ``size`` pixels; none for a reference that is not larger."""
    square = whole_reference(reference, size, mode)
    deviations = band_deviations(to_tensor(square), octaves(size, square.width))
    return tuple((round(r, 4), round(g, 4), round(b, 4)) for r, g, b in deviations.tolist())


def scaled(photo: Image.Image, size: Size) -> Image.Image:
    """The photograph with a longer side of ``size`` pixels; smaller ones stay as they are."""
    longer = max(photo.size)
    if isinstance(size, str) or size >= longer:
        return photo
    width, height = (max(1, round(side * size / longer)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def full_size(
    photo: Image.Image,
    square: Tensor,
    stylized: Tensor,
    transform: FitTransform,
    detail: Detail = "guided",
    texture: Texture = (),
    strength: float = 1.0,
) -> Image.Image:
    """``photo`` with the region of ``transform`` replaced by its stylization; outside of it every byte is the photo's.

    Args:
        photo: upright RGB of any size, the picture that ``transform`` tells about or that scaled.
        square, stylized: [3, S, S] in [-1, 1], the base's photograph and what became of it.
        detail: "guided": the photograph's own detail in the colours of the stylization; "residual": with the strokes
            that have no edge there, and the contrast of ``texture``; "none": the stylization enlarged.
        texture: the reference's (:func:`texture_of`).
        strength: the style's, in [0, 1]; "residual" adds so much of the strokes and of the texture's contrast.

    Raises:
        NotFinite: a pixel is NaN or infinite.
    """
    box = _scaled_box(transform, photo.size)
    part = _part(photo, box, square, stylized, transform, detail, texture, strength)
    ramps = _ramps(photo.size, box)
    result = photo.copy()
    result.info = {}
    for left, top, right, bottom in _tiles(box):
        pixels = to_tensor(photo.crop((left, top, right, bottom)))
        y, x = top - box[1], left - box[0]
        painted = part(pixels, y, x)
        weight = ramps[1][y : y + bottom - top, None] * ramps[0][x : x + right - left]
        result.paste(to_image(torch.lerp(pixels, painted, weight)), (left, top))
    return result


def _part(
    photo: Image.Image,
    box: tuple[int, int, int, int],
    square: Tensor,
    stylized: Tensor,
    transform: FitTransform,
    detail: Detail,
    texture: Texture,
    strength: float,
) -> Part:
    """What makes the stylization of any part of the region."""
    width, height = box[2] - box[0], box[3] - box[1]
    if detail == "none":
        enlarged = unfit(to_image(stylized), transform.model_copy(update={"box": (0, 0, width, height)}))
        return lambda pixels, top, left: to_tensor(
            enlarged.crop((left, top, left + pixels.shape[2], top + pixels.shape[1]))
        )
    left, top, right, bottom = transform.target
    small, result = (image[:, top:bottom, left:right].float().cpu() for image in (square, stylized))
    middle = None
    if detail == "residual":
        scale = 1 << octaves(transform.size, min(_MIDDLE, max(width, height)))
        size = (small.shape[2] * scale, small.shape[1] * scale)
        middle = to_tensor(photo.resize(size, Image.Resampling.LANCZOS, box=box))
    bands = torch.tensor(texture)
    return Upsampler(small, result, (height, width), middle=middle, bands=bands, strength=strength)


def _scaled_box(transform: FitTransform, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The region in a picture of ``size``; never empty."""
    x, y = size[0] / transform.original_width, size[1] / transform.original_height
    left, top = round(transform.box[0] * x), round(transform.box[1] * y)
    return left, top, max(left + 1, round(transform.box[2] * x)), max(top + 1, round(transform.box[3] * y))


def _ramps(size: tuple[int, int], box: tuple[int, int, int, int]) -> list[Tensor]:
    """Weights of the stylization along the region's width and height: below 1 where it ends inside the picture."""
    feather = max(1, round(FEATHER * min(box[2] - box[0], box[3] - box[1])))
    ramps = []
    for start, stop, end in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        t = ((torch.arange(stop - start) + 0.5) / feather).clamp(max=1)
        rise, ramp = t * t * (3 - 2 * t), torch.ones(stop - start)
        if start > 0:
            ramp = ramp * rise
        if stop < end:
            ramp = ramp * rise.flip(0)
        ramps.append(ramp)
    return ramps


def _tiles(box: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the tiles of a region."""
    for top in range(box[1], box[3], _TILE):
        for left in range(box[0], box[2], _TILE):
            yield left, top, min(left + _TILE, box[2]), min(top + _TILE, box[3])
