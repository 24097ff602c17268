"""TIFF: tags are judged before a decoder runs; kinds that Pillow reads wrongly are taken apart into grey pictures."""

import io
import struct
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from osasis.errors import ImageRejected
from osasis.imaging.colour import deep_grey, eight_bits
from osasis.imaging.jpeg import MOST_SCANS

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_ORIENTATION, _PROFILE = 274, 34675

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_PHOTOMETRICS = {
    0: "grey (white is zero)", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIE Lab",
    9: "ICC Lab", 10: "ITU Lab", 32803: "raw sensor data", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw data",
}  # fmt: skip
_COMPRESSIONS = {
    1: "none", 2: "CCITT", 3: "CCITT G3", 4: "CCITT G4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    32773: "PackBits", 32946: "Deflate", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_JPEG = (6, 7)
_USUAL = (1, 2, 3, 4, 5, *_JPEG, 8, 32773, 32946)
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "untyped", 5: "complex", 6: "complex"}

Tags = dict[int, Any]


def read_tags(data: bytes) -> Tags | None:
    """Tags of the first picture; None where they cannot be read."""
    header = data[: 16 if data[2:3] == b"+" or data[3:4] == b"+" else 8]
    try:
        directory = ImageFileDirectory_v2(header)
        file = io.BytesIO(data)
        file.seek(directory.next)
        entries = int.from_bytes(data[directory.next : directory.next + 2], "little" if data[:2] == b"II" else "big")
        if directory.next + 2 + 12 * entries > len(data):
            return None
        directory.load(file)
        tags = {tag: directory[tag] for tag in directory if tag in _KNOWN}
    except Exception:  # what a damaged file makes Pillow raise
        return None
    tags.setdefault(_PHOTOMETRIC, 0)
    sizes = (tags.get(_WIDTH), tags.get(_HEIGHT))
    parts = tags.get(_STRIPS, tags.get(_TILES))
    return tags if all(isinstance(size, int) for size in sizes) and parts is not None else None


def check_tags(tags: Tags, data: bytes, most_bytes: int) -> None:
    """Refuse what would cost too much.

    Raises:
        ImageRejected: kind is "too-large" or "too-costly".
    """
    width, height, samples = tags[_WIDTH], tags[_HEIGHT], _samples(tags)
    sample_bytes = samples * max(1, -(-_bits(tags) // 8))
    if width * height * sample_bytes > most_bytes:
        raise ImageRejected(
            "too-large", f"{width}×{height} of {sample_bytes} bytes a pixel: more than {most_bytes} bytes"
        )
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    if all(isinstance(side, int) for side in tile):
        padded = -(-width // (tile[0] or 1)) * tile[0] * -(-height // (tile[1] or 1)) * tile[1] * sample_bytes
        if padded > max(4 * width * height * sample_bytes, 1 << 22) or padded > 2 * most_bytes:
            raise ImageRejected("too-costly", f"TIFF: tiles of {tile[0]}×{tile[1]} for a picture of {width}×{height}")
    if tags.get(_COMPRESSION) in _JPEG:
        parts = len(_values(tags.get(_STRIPS, tags.get(_TILES, ()))))
        if data.count(b"\xff\xda") > MOST_SCANS * max(1, parts):
            raise ImageRejected("too-costly", f"TIFF: more than {MOST_SCANS} JPEG scans a part")


def unsupported(tags: Tags) -> ImageRejected:
    """By name, what a file is that no decoder takes."""
    photometric, compression = tags[_PHOTOMETRIC], tags.get(_COMPRESSION, 1)
    kind = _FORMATS.get(_values(tags.get(_FORMAT, 1))[0], "unknown")
    planes = ", separate planes" if tags.get(_PLANAR) == 2 else ""
    return ImageRejected(
        "unsupported",
        f"TIFF with {_PHOTOMETRICS.get(photometric, f'photometric {photometric}')}, {_samples(tags)} × {_bits(tags)} "
        f"bits {kind}{planes}, compression {_COMPRESSIONS.get(compression, compression)}: "
        "save it as RGB with 8 bits a channel",
    )


def taken_apart(tags: Tags, data: bytes) -> Image.Image | None:
    """The picture of a file with separate planes, or of deep grey where white is zero; None: Pillow reads it rightly.

    Not turned upright; ``info`` has its colour profile.

    Raises:
        ImageRejected: kind is "unsupported".
    """
    photometric, bits, samples = tags[_PHOTOMETRIC], _bits(tags), _samples(tags)
    if bits == 8 and _values(tags.get(_FORMAT, 1))[0] == 2:
        raise unsupported(tags)  # Pillow takes signed bytes for unsigned ones
    planar = tags.get(_PLANAR) == 2
    inverted = photometric == _WHITE_IS_ZERO and bits == 16
    if not planar and not inverted:
        return None
    extra = _values(tags.get(_EXTRA, ()))
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}.get(photometric)
    if (
        colours is None or bits not in (8, 16) or samples > colours + 1 or samples < colours
        or _values(tags.get(_FORMAT, 1))[0] != 1 or tags.get(_COMPRESSION, 1) in _JPEG
        or data[2:4] not in (b"*\0", b"\0*")  # BigTIFF
        or (not planar and samples > 1) or (photometric == _CMYK and samples > 4)
    ):  # fmt: skip
        raise unsupported(tags)
    planes = [_plane(tags, data, number, samples) for number in range(samples)]
    if photometric == _WHITE_IS_ZERO:
        planes[0] = _inverted(planes[0])
    image = _merged(planes, colours, extra)
    if isinstance(tags.get(_PROFILE), bytes):
        image.info["icc_profile"] = tags[_PROFILE]
    return image


def orientation_of(tags: Tags) -> int:
    value = tags.get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def unusual_compression(tags: Tags) -> bool:
    """Whether libtiff need not be built with its compression."""
    return tags.get(_COMPRESSION, 1) not in _USUAL


def highest(tags: Tags) -> int:
    """White of grey that Pillow gives as 16 bits."""
    return 4095 if _bits(tags) == 12 else 65535


def _plane(tags: Tags, data: bytes, number: int, samples: int) -> Image.Image:
    """One sample of every pixel, as grey: a file of that plane's parts alone."""
    where, sizes = (_TILES, _TILE_BYTES) if _TILES in tags else (_STRIPS, _STRIP_BYTES)
    offsets, counts = _values(tags.get(where, ())), _values(tags.get(sizes, ()))
    share = len(offsets) // samples
    if not share or len(offsets) != len(counts) or share * samples != len(offsets):
        raise ImageRejected("damaged", "TIFF: its table of parts does not fit its planes")
    part = slice(number * share, (number + 1) * share)
    parts = [data[offset : offset + count] for offset, count in zip(offsets[part], counts[part], strict=True)]
    copied = (_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER, _ROWS, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT)
    entries = {tag: _values(tags[tag]) for tag in copied if tag in tags}
    entries |= {_BITS: (_bits(tags),), _SAMPLES: (1,), _PHOTOMETRIC: (_BLACK_IS_ZERO,)}
    lengths = [len(body) for body in parts]
    entries |= {where: tuple(accumulate(lengths[:-1], initial=8)), sizes: tuple(lengths)}
    order, at = "<" if data[:2] == b"II" else ">", 8 + sum(lengths)
    padding = at % 2
    directory = _directory(entries, at + padding, order)
    file = b"".join([data[:4], struct.pack(f"{order}I", at + padding), *parts, bytes(padding), directory])
    image = Image.open(io.BytesIO(file), formats=("TIFF",))
    image.load()
    return deep_grey(image) if image.mode.startswith("I;16") else image.convert("L")


def _directory(entries: dict[int, tuple[int, ...]], at: int, order: str) -> bytes:
    """A TIFF directory to stand at offset ``at``, of 32-bit numbers alone."""
    fixed, further = b"", b""
    after = at + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place, further = struct.pack(f"{order}I", after + len(further)), further + packed
        else:
            place = packed
        fixed += struct.pack(f"{order}HHI", tag, 4, len(values)) + place
    return struct.pack(f"{order}H", len(entries)) + fixed + bytes(4) + further


def _merged(planes: list[Image.Image], colours: int, extra: tuple[int, ...]) -> Image.Image:
    if len(planes) == 1:
        return planes[0]
    shallow = [eight_bits(plane) if plane.mode == "I;16" else plane for plane in planes]
    premultiplied = extra[:1] == (1,)
    if len(planes) == colours or extra[:1] == (0,):
        return Image.merge({1: "L", 3: "RGB", 4: "CMYK"}[colours], shallow[:colours])
    if colours == 1:
        return Image.merge("La" if premultiplied else "LA", shallow)
    return Image.merge("RGBa" if premultiplied else "RGBA", shallow)


def _inverted(plane: Image.Image) -> Image.Image:
    if plane.mode == "L":
        return ImageChops.invert(plane)
    return Image.fromarray(65535 - np.asarray(plane))


def _bits(tags: Tags) -> int:
    return max(_values(tags.get(_BITS, 1)))


def _samples(tags: Tags) -> int:
    value = tags.get(_SAMPLES, len(_values(tags.get(_BITS, 1))))
    return value if isinstance(value, int) and value > 0 else 1


def _values(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


_KNOWN = frozenset(
    [
        _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES,
        _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT, _ORIENTATION, _PROFILE,
    ]
)  # fmt: skip
