"""Makes the files that real photo folders hold and image code dies of."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    """A smooth RGB picture whose left top is red and right bottom blue."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    rgb = np.stack([255 * (1 - (x + y) / 2), 40 + 30 * np.sin(6 * x + seed), 255 * (x + y) / 2], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """File bytes of ``image``."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG written by hand; ``pixels`` are the filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bomb(side: int = 20_000) -> bytes:
    """A PNG of ``side`` × ``side`` in a few bytes."""
    return png(side, side, 8, 2, bytes(64))


def deep_png(width: int = 32, height: int = 32) -> bytes:
    """16-bit grey, a ramp from 0 to 65535 along x."""
    row = np.linspace(0, 65535, width).round().astype(">u2").tobytes()
    return png(width, height, 16, 0, (b"\0" + row) * height)


def deep_rgb_png(width: int = 32, height: int = 32) -> bytes:
    """16-bit RGB, one colour: (65535, 32896, 0)."""
    row = np.array([65535, 32896, 0], dtype=">u2").tobytes() * width
    return png(width, height, 16, 2, (b"\0" + row) * height)


def rotated_jpeg() -> bytes:
    """Stored lying on its side, with EXIF orientation 6: upright it is 40 wide, 48 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(48, 40), "JPEG", exif=exif, quality=95)


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def _transparent() -> Image.Image:
    image = picture(32, 32).convert("RGBA")
    image.putalpha(Image.new("L", (32, 32), 0))
    return image


def _palette() -> bytes:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    return encoded(image, "PNG", transparency=0)


def hostile_files() -> dict[str, tuple[bytes, str | None]]:
    """Name → (bytes, the kind it must be rejected as; None where it must be done)."""
    jpeg = encoded(picture(), "JPEG")
    return {
        "plain.jpg": (jpeg, None),
        "same content.jpg": (jpeg, None),
        "sub/größe #1 – 写真.jpg": (encoded(picture(seed=1), "JPEG"), None),
        "plain.png": (encoded(picture(), "PNG"), None),
        "deep.png": (deep_png(), None),
        "deep-rgb.png": (deep_rgb_png(), None),
        "cmyk.jpg": (encoded(picture().convert("CMYK"), "JPEG"), None),
        "palette.png": (_palette(), None),
        "rgba.png": (encoded(_transparent(), "PNG"), None),
        "grey.jpg": (encoded(picture().convert("L"), "JPEG"), None),
        "grey-alpha.png": (encoded(picture().convert("LA"), "PNG"), None),
        "one-bit.png": (encoded(picture().convert("1"), "PNG"), None),
        "rotated.jpg": (rotated_jpeg(), None),
        "animated.gif": (_animated("GIF"), None),
        "animated.webp": (_animated("WEBP"), None),
        "bitmap.bmp": (encoded(picture(), "BMP"), None),
        "scan.tiff": (encoded(picture(), "TIFF"), None),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "beheaded.jpg": (jpeg[:10], "truncated"),
        "empty.jpg": (b"", "empty"),
        "text.png": (b"I am not a picture.\n", "not-an-image"),
        "float.tiff": (encoded(Image.new("F", (32, 32)), "TIFF"), "unsupported"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(64), "unsupported"),
        "dot.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "too-small"),
        "bomb.png": (bomb(), "too-large"),
    }


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write each file, folders included."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
