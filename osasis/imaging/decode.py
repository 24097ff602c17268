"""Bytes of a picture's file → upright sRGB, 8 bits a channel. docs/decoding.md has the table of what is read."""

import io
import re
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from osasis.errors import ImageRejected
from osasis.imaging import tiff
from osasis.imaging.colour import adobe_rgb, deep_grey, eight_bits, to_srgb
from osasis.imaging.embedded import embedded_profile
from osasis.imaging.jpeg import FILLER, read_jpeg
from osasis.imaging.png import Png, read_png
from osasis.imaging.profiles import Chromaticities, of_cicp, of_gamma

DECODER = 2
"""Version of what pixels come of a file. 1: colour profiles were ignored."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The only decoders that are ever opened."""

MAX_PIXELS = 64_000_000
"""Default limit of width · height, checked from the header before anything is decoded."""

PIXELS_CEILING = 178_956_970
"""The highest limit that can be asked for: Pillow itself refuses beyond it."""

BYTES_PER_PIXEL = 4
"""Of the limit on decoded bytes: deeper pictures can have fewer pixels."""

MIN_SIDE = 8
"""Shorter images hold no portrait."""

MAX_SECONDS = 30.0
"""Processor time for one picture; looked at whenever a decoder asks for more bytes."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → how to turn."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"8BPS", "Photoshop"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"\0\0\1\0", "icon"), (b"%PDF", "PDF"),
)  # fmt: skip
_ORIENTATION, _EXIF, _INTEROPERABILITY, _COLOUR_SPACE = 0x0112, 0x8769, 0xA005, 0xA001
_ADOBE, _UNCALIBRATED = 2, 0xFFFF
_SHORT = "the file ends before the picture does"
_IN_WORDS = (
    (r"image file is truncated.*|.*not enough.*|.*too short.*|.*unexpected end.*", _SHORT),
    (r".*broken data stream.*|.*decoder error.*|-\d+", "the compressed pixels are damaged"),
    (r".*unrecognized data stream contents.*", "the compressed pixels are of no known kind"),
)


@dataclass
class _Open:
    """A picture that a decoder has opened, with what its file says of colours and position."""

    image: Image.Image
    notes: list[str] = field(default_factory=list)
    png: Png | None = None
    orientation: int = 1
    turned: bool = False
    """Whether the pixels are upright already."""
    highest: int = 65535
    """White of 16-bit grey."""
    converted: bool = False
    """Whether the first version of this decoder gave other pixels."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, max_seconds: float = MAX_SECONDS) -> Image.Image:
    """The picture in a file's bytes: upright, sRGB, 8 bits a channel.

    Animations give their first frame, transparency is laid on white, 16 bits are scaled (not clipped). ``info`` of the
    result tells which EXIF ``orientation`` was applied, whether colours were ``converted``, and in ``notes`` (a list)
    what was mended or left out.

    Raises:
        ImageRejected: kind is "empty", "not-an-image", "unsupported", "truncated", "damaged", "too-large", "too-small"
            or "too-costly". Messages depend on the bytes alone, but for the limit of seconds.
    """
    if not data:
        raise ImageRejected("empty", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow: bombs are judged below, broken metadata is no reason to refuse
        name = sniff(data)
        try:
            opened = _open(data, name, max_pixels, max_seconds)
            return _finished(opened)
        except (ImageRejected, MemoryError):
            raise
        except Exception as error:  # decoders raise anything on broken input
            raise _broken(name or "image", error) from error


def opened_rgb(image: Image.Image) -> Image.Image:
    """A picture that is open already, as :func:`decode_image` would give it; ``image`` is left as it is.

    Raises:
        ImageRejected: kind is "too-small", "too-large" or "unsupported".
    """
    check_size(*image.size, max_pixels=PIXELS_CEILING)
    info, chromaticities = image.info, image.info.get("chromaticity")
    stated = Png(
        profile=info.get("icc_profile"),
        srgb="srgb" in info,
        gamma=info.get("gamma"),
        chromaticities=Chromaticities(*chromaticities) if chromaticities else None,
    )
    opened = _Open(image.copy(), png=stated, orientation=_orientation(image))
    opened.image.format = image.format
    return _finished(opened)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises ImageRejected, "too-large" or "too-small"."""
    if width * height > max_pixels:
        raise ImageRejected("too-large", f"{width}×{height} is more than {max_pixels} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageRejected("too-small", f"{width}×{height}: the shorter side has fewer than {MIN_SIDE} pixels")


def sniff(data: bytes) -> str | None:
    """What the first bytes claim to be."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "HEIF, AVIF or video"
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)


def _open(data: bytes, name: str | None, max_pixels: int, max_seconds: float) -> _Open:
    """Checked, then decoded."""
    if name == "TIFF":
        return _tiff(data, max_pixels, max_seconds)
    if name == "JPEG":
        return _jpeg(data, max_pixels, max_seconds)
    png = read_png(data) if name == "PNG" and data[12:16] == b"IHDR" else None
    image = _identified(png.data if png else data, data, max_seconds)
    check_size(*image.size, max_pixels=max_pixels)
    image.load()
    if profile := embedded_profile(name, data):
        image.info["icc_profile"] = profile
    return _Open(image, png.notes if png else [], png, _orientation(image))


def _jpeg(data: bytes, max_pixels: int, max_seconds: float) -> _Open:
    markers = read_jpeg(data)
    image = _identified(data, data, max_seconds)
    check_size(*image.size, max_pixels=max_pixels)
    notes = []
    if not markers.whole:
        image = _identified(data + b"\xff\xd9", data, max_seconds)
        # Where pixels are missing, the decoder makes them up from what follows.
        other = _identified(data + FILLER, data, max_seconds)
        if not markers.every_scan or not _equal(image, other):
            raise ImageRejected("truncated", f"JPEG: {_SHORT}")
        notes.append("JPEG: the end marker (EOI) is missing")
    image.load()
    return _Open(image, notes, None, _orientation(image))


def _equal(a: Image.Image, b: Image.Image, rows: int = 512) -> bool:
    boxes = [(0, top, a.width, min(top + rows, a.height)) for top in range(0, a.height, rows)]
    return all(a.crop(box).tobytes() == b.crop(box).tobytes() for box in boxes)


def _tiff(data: bytes, max_pixels: int, max_seconds: float) -> _Open:
    tags = tiff.read_tags(data)
    if tags is None:
        raise ImageRejected("truncated", "TIFF whose header is cut short or damaged")
    check_size(tags[256], tags[257], max_pixels=max_pixels)
    tiff.check_tags(tags, data, BYTES_PER_PIXEL * max_pixels)
    orientation = tiff.orientation_of(tags)
    if image := tiff.taken_apart(tags, data):
        return _Open(image, orientation=orientation, converted=True)
    try:
        image = Image.open(_Watched(data, max_seconds), formats=("TIFF",))
    except UnidentifiedImageError:
        raise tiff.unsupported(tags) from None
    try:
        image.load()  # turns it upright
    except OSError:
        if tiff.unusual_compression(tags):
            raise tiff.unsupported(tags) from None
        raise
    return _Open(image, orientation=orientation, turned=True, highest=tiff.highest(tags))


def _identified(data: bytes, original: bytes, max_seconds: float) -> Image.Image:
    try:
        return Image.open(_Watched(data, max_seconds), formats=FORMATS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise ImageRejected("too-large", f"{pixels.group() if pixels else 'too many'} pixels") from error
    except UnidentifiedImageError as error:
        raise _unidentified(original) from error


def _finished(opened: _Open) -> Image.Image:
    """sRGB, laid on white, upright."""
    profile = _profile(opened)
    colour, alpha = _split(opened)
    opened.image = colour  # large pictures stand in memory as seldom as can be
    rgb, converted = to_srgb(colour, profile, opened.notes)
    opened.converted |= converted
    if alpha is not None:
        rgb.paste((255, 255, 255), mask=ImageChops.invert(alpha))
    turn = None if opened.turned else UPRIGHT.get(opened.orientation)
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {"orientation": opened.orientation, "converted": opened.converted, "notes": opened.notes}
    return upright


def _split(opened: _Open) -> tuple[Image.Image, Image.Image | None]:
    """(mode L, I;16, RGB, CMYK or LAB; opacity, where there is any)."""
    image, png = opened.image, opened.png
    transparent = png.transparent if png else None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        deep = deep_grey(image)
        alpha = None if transparent is None else _opacity(deep, transparent[0])
        return (eight_bits(deep, opened.highest) if opened.highest != 65535 else deep), alpha
    if image.mode in ("I", "F", "HSV"):
        kind = {"I": "32-bit or signed", "F": "floating-point"}.get(image.mode, image.mode)
        raise ImageRejected("unsupported", f"{image.format} with {kind} values: save it with 8 bits a channel")
    if transparent is not None and png is not None:
        return _with_key(image, transparent, png.depth)
    if image.mode in ("L", "RGB", "CMYK", "LAB") and "transparency" not in image.info:
        return image, None
    if image.mode in ("1", "L", "LA", "La"):
        if "transparency" in image.info or image.mode in ("LA", "La"):
            grey, alpha = image.convert("LA").split()
            return grey, alpha
        return image.convert("L"), None
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        return layer.convert("RGB"), layer.getchannel("A")
    return image.convert("RGB"), None


def _with_key(image: Image.Image, transparent: tuple[int, ...], depth: int) -> tuple[Image.Image, Image.Image]:
    """Grey of up to 8 bits with one transparent value."""
    if image.mode not in ("1", "L"):
        raise ImageRejected("unsupported", "PNG with 16 bits a channel and one transparent colour: save it with 8")
    grey = image.convert("L")
    value = transparent[0] * 255 // (2**depth - 1)
    return grey, grey.point([0 if level == value else 255 for level in range(256)])


def _opacity(deep: Image.Image, transparent: int) -> Image.Image:
    """L: 0 where the 16-bit grey is ``transparent``, else 255."""
    return Image.fromarray(np.where(np.asarray(deep) == transparent, 0, 255).astype(np.uint8))


def _profile(opened: _Open) -> bytes | None:
    """The colour profile of the pixels; None: sRGB."""
    png, image = opened.png, opened.image
    grey = image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16")
    if png and png.cicp:
        return of_cicp(png.cicp, grey=grey)
    profile = png.profile if png else image.info.get("icc_profile")
    if profile:
        return bytes(profile)
    if png and not png.srgb and (png.gamma is not None or png.chromaticities):
        try:
            return of_gamma(png.gamma, png.chromaticities, grey=grey)
        except ValueError as error:
            opened.notes.append(f"PNG: its colours are stated by numbers that cannot be ({error}); taken for sRGB")
    return adobe_rgb() if image.mode == "RGB" and _camera_adobe(image) else None


def _camera_adobe(image: Image.Image) -> bool:
    """Whether EXIF says Adobe RGB, as cameras do that embed no profile."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(_EXIF).get(_COLOUR_SPACE)
        return space == _ADOBE or (space == _UNCALIBRATED and exif.get_ifd(_INTEROPERABILITY).get(1) == "R03")
    except Exception:
        return False


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1
    return value if value in UPRIGHT else 1


class _Watched(io.BytesIO):
    """A file that ends the work of a decoder that takes too long."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._seconds, self._until = seconds, time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._until:
            raise ImageRejected("too-costly", f"decoding takes more than {self._seconds:g} seconds of a processor")
        return super().read(size)


def _unidentified(data: bytes) -> ImageRejected:
    name = sniff(data)
    if name is None:
        return ImageRejected("not-an-image", "the content is of no image format")
    if name not in FORMATS:
        return ImageRejected("unsupported", f"{name} is not among {', '.join(FORMATS)}")
    return ImageRejected("truncated", f"{name} whose header is cut short or damaged")


def _broken(name: str, error: Exception) -> ImageRejected:
    reason = re.sub(r"<[^>]*>", "…", str(error)) or type(error).__name__  # reprs hold addresses
    words = next((words for pattern, words in _IN_WORDS if re.fullmatch(pattern, reason, re.IGNORECASE)), reason)
    short = words == _SHORT or re.search("truncat", reason, re.IGNORECASE) or isinstance(error, EOFError)
    return ImageRejected("truncated" if short else "damaged", f"{name}: {words}")
