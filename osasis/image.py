"""Image intake and output: bytes of any usual kind → square RGB pixels → tensor, and back.

Images are PIL RGB, 8 bits a channel; tensors are [3, S, S] float32 in [-1, 1]. Embedded colour profiles are not
applied.
"""

import io
import re
import struct
import warnings
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from osasis.errors import ImageRejected, NotFinite

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The only decoders that are ever opened."""

MAX_PIXELS = 64_000_000
"""Default limit of width · height, checked from the header before anything is decoded."""

PIXELS_CEILING = 178_956_970
"""The highest limit that can be asked for: Pillow itself refuses beyond it."""

MIN_SIDE = 8
"""Shorter images hold no portrait."""

FitMode = Literal["crop", "pad", "squash"]

FileFormat = Literal["png", "jpeg", "webp"]
"""Of outputs."""

EXTENSIONS: dict[FileFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

QUALITY = 92
"""Of JPEG and WebP outputs."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"8BPS", "Photoshop"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"\0\0\1\0", "icon"), (b"%PDF", "PDF"),
)  # fmt: skip


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


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in a file's bytes: upright, RGB, 8 bits a channel.

    Animations give their first frame, transparency is laid on white, 16-bit grey is scaled (not clipped).
    ``info["orientation"]`` of the result tells which EXIF orientation was applied.

    Raises:
        ImageRejected: kind is "empty", "not-an-image", "unsupported", "truncated", "damaged", "too-large" or
            "too-small". Messages depend on the bytes alone.
    """
    if not data:
        raise ImageRejected("empty", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow: bombs are judged below, broken metadata is no reason to refuse
        image = _open(data)
        _check_size(*image.size, max_pixels=max_pixels)
        try:
            image.load()
            orientation = _orientation(image)
            upright = _to_rgb(image)
        except (ImageRejected, MemoryError):
            raise
        except Exception as error:  # decoders raise anything on broken input
            raise _broken(image.format or "image", error) from error
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    upright.info = {"orientation": orientation}
    return upright


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


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture that is open already, as :func:`decode_image` would give it; ``image`` is left as it is.

    Raises:
        ImageRejected: kind is "too-small" or "unsupported".
    """
    _check_size(*image.size, max_pixels=PIXELS_CEILING)
    turn = _UPRIGHT.get(_orientation(image))
    upright = _to_rgb(image)
    return upright.transpose(turn) if turn is not None else upright


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
    """PNG bytes; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(buffer, "PNG", compress_level=6)  # a copy, free of metadata
    return buffer.getvalue()


def encode_image(image: Image.Image, file_format: FileFormat = "png", quality: int = QUALITY) -> bytes:
    """The bytes of a file that says it is sRGB; equal pixels give equal bytes. ``quality`` is JPEG's and WebP's.

    Raises:
        ValueError: the format cannot hold a picture of that size.
    """
    longest = {"png": 2**31 - 1, "jpeg": 65_535, "webp": 16_383}[file_format]
    if max(image.size) > longest:
        raise ValueError(f"{file_format} holds at most {longest} pixels a side, not {image.width}×{image.height}")
    if file_format == "png":
        srgb = PngInfo()
        srgb.add(b"sRGB", b"\0")  # perceptual intent
        options: dict[str, Any] = {"compress_level": 6, "pnginfo": srgb}
    else:
        options = {"quality": quality, "icc_profile": _srgb_profile()}
        options |= {"method": 4} if file_format == "webp" else {"subsampling": 0 if quality >= 90 else 2}
    buffer = io.BytesIO()
    info, image.info = image.info, {}  # Pillow would write of it what it can, and a copy may be large
    try:
        image.save(buffer, file_format, **options)
    finally:
        image.info = info
    return buffer.getvalue()


@cache
def _srgb_profile() -> bytes:
    """An ICC profile of sRGB, without the time it was made."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise ImageRejected("too-large", f"{pixels.group() if pixels else 'too many'} pixels") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(_sniff(data) or "image", error) from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageRejected("too-large", f"{width}×{height} is more than {max_pixels} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageRejected("too-small", f"{width}×{height}: the shorter side has fewer than {MIN_SIDE} pixels")


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F", "LAB", "HSV"):
        raise ImageRejected("unsupported", f"{image.format} with pixels of kind {mode}: save it with 8 bits a channel")
    if "transparency" in image.info or image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _sniff(data: bytes) -> str | None:
    """What the first bytes claim to be."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "HEIF, AVIF or video"
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)


def _unidentified(data: bytes) -> ImageRejected:
    name = _sniff(data)
    if name is None:
        return ImageRejected("not-an-image", "the content is of no image format")
    if name not in FORMATS:
        return ImageRejected("unsupported", f"{name} is not among {', '.join(FORMATS)}")
    return ImageRejected("truncated", f"{name} whose header is cut short or damaged")


def _broken(name: str, error: Exception) -> ImageRejected:
    reason = re.sub(r"<[^>]*>", "…", str(error)) or type(error).__name__  # reprs hold addresses
    short = re.search("truncat|not enough|too short|unexpected end", reason, re.IGNORECASE)
    return ImageRejected("truncated" if short or isinstance(error, EOFError) else "damaged", f"{name}: {reason}")
