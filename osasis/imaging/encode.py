"""Pictures as files that say they are sRGB."""

import io
import struct
from functools import cache
from typing import Any, Literal

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

FileFormat = Literal["png", "jpeg", "webp"]
"""Of outputs."""

EXTENSIONS: dict[FileFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

QUALITY = 92
"""Of JPEG and WebP outputs."""

_LONGEST: dict[FileFormat, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}


def encode_image(image: Image.Image, file_format: FileFormat = "png", quality: int = QUALITY) -> bytes:
    """The bytes of a file; equal pixels give equal bytes. ``quality`` is JPEG's and WebP's.

    Raises:
        ValueError: the format cannot hold a picture of that size.
    """
    longest = _LONGEST[file_format]
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
