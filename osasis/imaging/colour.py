"""Colours of any kind → sRGB, by Little CMS (Pillow's ImageCms)."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from osasis.imaging.profiles import ADOBE_RGB, gamma_curve, matrix_profile

_ROWS = 512
"""Rows of a 16-bit picture that are scaled at once."""

_SPACES = {"L": "GRAY", "I;16": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
_SPACE_NAMES = {"GRAY": "grey", "RGB ": "RGB", "CMYK": "CMYK"}


class BadProfile(Exception):
    """A profile that cannot be used."""


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> tuple[Image.Image, bool]:
    """(RGB, whether colours were converted) from mode L, I;16, RGB, CMYK or LAB; perceptual intent.

    ``image`` may be changed.

    A profile that cannot be used is left out, with a note: the pixels are then taken for sRGB.
    """
    if image.mode == "LAB":
        return _applied(image, _from_lab()), True
    if profile is not None:
        try:
            image, transform = _with_transform(image, profile)
            if transform is not None:
                return _applied(image, transform), True
        except BadProfile as error:
            notes.append(f"its colour profile is not used: {error}; its colours are taken for sRGB")
    elif image.mode == "CMYK":
        notes.append("CMYK without a colour profile: inks are taken for plain cyan, magenta, yellow and black")
    return _rgb(eight_bits(image) if image.mode == "I;16" else image), False


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def deep_grey(image: Image.Image) -> Image.Image:
    """Mode I;16 from any order of bytes, or from values of 16 bits in 32."""
    return image if image.mode == "I;16" else Image.fromarray(np.asarray(image).astype(np.uint16))


def eight_bits(image: Image.Image, highest: int = 65535) -> Image.Image:
    """L from I;16, whose values reach up to ``highest``; rounded."""
    result = Image.new("L", image.size)
    for top in range(0, image.height, _ROWS):
        rows = np.asarray(image.crop((0, top, image.width, min(top + _ROWS, image.height)))).astype(np.uint32)
        scaled = ((rows.clip(0, highest) * 255 + highest // 2) // highest).astype(np.uint8)
        result.paste(Image.fromarray(scaled), (0, top))
    return result


def adobe_rgb() -> bytes:
    """The profile of the optional colour space of cameras (DCF)."""
    return matrix_profile(ADOBE_RGB, gamma_curve(563 / 256))


def _with_transform(image: Image.Image, profile: bytes) -> tuple[Image.Image, ImageCms.ImageCmsTransform | None]:
    """The pixels in the profile's kind of values, and the way to sRGB; None: they are there."""
    space = profile[16:20].decode("latin-1")
    if space == "RGB " and image.mode in ("L", "I;16"):  # grey among pictures of a colour space: red = green = blue
        image = _rgb(eight_bits(image) if image.mode == "I;16" else image)
    if space != _SPACES[image.mode]:
        named = _SPACE_NAMES.get(space, repr(space.strip()))
        raise BadProfile(f"it is for {named}, and the pixels are {_SPACE_NAMES[_SPACES[image.mode]]}")
    return image, _transform(profile, image.mode)


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    in_place = image.mode == "RGB"
    return ImageCms.applyTransform(image, transform, inPlace=in_place) or image


@lru_cache(16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB; None where it would change no colour by more than a level: the profile is sRGB's."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise BadProfile(f"it is damaged ({error})") from None
    if mode != "RGB":
        return transform
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform))
    return None if np.abs(changed.astype(int) - cube).max() <= 1 else transform


@lru_cache(1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
