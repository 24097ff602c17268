"""Makes picture files by hand: chunks, markers and tags that no library writes, and colours stated in every way."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image

from osasis.imaging.profiles import DISPLAY_P3, Chromaticities, Curve, gamma_curve, matrix_profile, srgb_curve

SIDE = 16
Rgb = tuple[int, int, int]

PROPHOTO = Chromaticities(0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
P3_PROFILE = matrix_profile(DISPLAY_P3, srgb_curve)


def flat(colour: Rgb | int, side: int = SIDE) -> Image.Image:
    """A square of one colour, RGB or grey."""
    return Image.new("L" if isinstance(colour, int) else "RGB", (side, side), colour)


def gradient(side: int = SIDE) -> np.ndarray:
    """uint8 [side, side, 3], every pixel another one."""
    y, x = np.mgrid[0:side, 0:side]
    return np.stack([x * 9, y * 11, (x + y) * 5], -1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def expected_srgb(colour: Rgb, primaries: Chromaticities, curve: Curve) -> Rgb:
    """What a colour of another space is in sRGB, from its definition: by XYZ, white to white."""
    source, target = (_to_xyz(space) for space in (primaries, _SRGB))
    linear = np.linalg.solve(target, _bradford(primaries) @ source @ curve(np.array(colour) / 255)).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(value) for value in np.rint(encoded * 255))
    return red, green, blue


_SRGB = Chromaticities(0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def _to_xyz(space: Chromaticities) -> np.ndarray:
    white, *rgb = np.array(space).reshape(4, 2)
    columns = np.stack([np.array([x / y, 1, (1 - x - y) / y]) for x, y in rgb], 1)
    x, y = white
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


def _bradford(space: Chromaticities) -> np.ndarray:
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    whites = [_to_xyz(s).sum(1) for s in (space, _SRGB)]
    return np.linalg.inv(cone) @ np.diag((cone @ whites[1]) / (cone @ whites[0])) @ cone


def expected_from_lab(lightness: float, a: float, b: float) -> Rgb:
    """CIE L*a*b* under D50 in sRGB."""
    f = np.array([(lightness + 16) / 116 + a / 500, (lightness + 16) / 116, (lightness + 16) / 116 - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array([0.9642, 1, 0.8249])
    d50 = Chromaticities(0.34567, 0.35850, *_SRGB[2:])
    linear = np.linalg.solve(_to_xyz(_SRGB), _bradford(d50) @ xyz).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(value) for value in np.rint(encoded * 255))
    return red, green, blue


# PNG


def chunk(kind: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    """One chunk; ``wrong``: with another checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(*further: bytes, pixels: bytes | None = None, depth: int = 8, colour_type: int = 2, end: bool = True) -> bytes:
    """A PNG of :data:`SIDE`² pixels with ``further`` chunks before the pixels; rows given without their filter byte."""
    rows = bytes([90, 140, 200]) * SIDE * SIDE if pixels is None else pixels
    width = len(rows) // SIDE
    data = zlib.compress(b"".join(b"\0" + rows[i * width : (i + 1) * width] for i in range(SIDE)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour_type, 0, 0, 0))
    ending = chunk(b"IEND", b"") if end else b""
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(further) + chunk(b"IDAT", data) + ending


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))


def gama(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chrm(space: Chromaticities) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in space)))


def cicp(*points: int) -> bytes:
    return chunk(b"cICP", bytes(points))


# JPEG


def jpeg_photo(**options: object) -> bytes:
    return saved(Image.fromarray(gradient(64)), "JPEG", quality=90, **options)


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan stands ``count`` times."""
    data = saved(flat((90, 90, 90), 512), "JPEG", progressive=True)
    last = [match.start() for match in re.finditer(rb"\xff\xda", data)][-1]
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def cut_between_scans() -> bytes:
    """A progressive JPEG that ends before its last scan."""
    data = jpeg_photo(progressive=True)
    return data[: [match.start() for match in re.finditer(rb"\xff\xda", data)][-1]]


def with_frame(code: int, precision: int = 8) -> bytes:
    """A JPEG that claims to be of another kind (SOF ``code``)."""
    data = bytearray(jpeg_photo())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC0 + code, precision
    return bytes(data)


# TIFF


def tiff(values: np.ndarray, photometric: int, *, order: str = "<", planar: bool = False, **tags: int) -> bytes:
    """An uncompressed TIFF of ``values`` [H, W] or [H, W, samples]; ``tags`` by number, such as ``t274=6``."""
    samples = 1 if values.ndim == 2 else values.shape[2]
    stored = np.moveaxis(values.reshape(*values.shape[:2], samples), -1, 0) if planar else values
    pixels = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape[:2]
    bits = values.dtype.itemsize * 8
    parts = samples if planar else 1
    size = len(pixels) // parts
    entries: dict[int, list[int]] = {
        256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric],
        273: [8 + i * size for i in range(parts)], 277: [samples], 278: [height], 279: [size] * parts,
        284: [2 if planar else 1],
    }  # fmt: skip
    return tiff_file(entries | {int(tag[1:]): [value] for tag, value in tags.items()}, pixels, order)


def tiff_file(entries: dict[int, list[int]], pixels: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of these tags, all of 32-bit numbers, whose pixels start at byte 8."""
    pixels += bytes(len(pixels) % 2)
    at = 8 + len(pixels)
    fixed, further = b"", b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        place = packed if len(values) == 1 else struct.pack(f"{order}I", at + 6 + 12 * len(entries) + len(further))
        further += packed if len(values) > 1 else b""
        fixed += struct.pack(f"{order}HHI", tag, 4, len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return head + pixels + struct.pack(f"{order}H", len(entries)) + fixed + bytes(4) + further


def twelve_bits(values: np.ndarray) -> bytes:
    """Grey of 12 bits [H, W], packed."""
    bits = ((values[..., None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8)
    rows = np.packbits(bits.reshape(len(values), -1), axis=-1).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(rows)}
    return tiff_file({tag: [value] for tag, value in tags.items()}, rows)


# Others


def bmp_with_profile(colour: Rgb, profile: bytes) -> bytes:
    """A BMP of version 5 with an embedded profile."""
    red, green, blue = colour
    pixels = bytes([blue, green, red]) * SIDE * SIDE
    header = struct.pack("<IiiHHIIiiII", 124, SIDE, SIDE, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    size = 14 + 124 + len(pixels) + len(profile)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, 14 + 124) + header + pixels + profile


def gif_with_profile(colour: Rgb, profile: bytes) -> bytes:
    data = saved(flat(colour).convert("P", palette=Image.Palette.ADAPTIVE), "GIF")
    parts = [profile[i : i + 255] for i in range(0, len(profile), 255)]
    block = b"\x21\xff\x0bICCRGBG1012" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    after_palette = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:after_palette] + block + data[after_palette:]


def cmyk_profile(solid: Rgb) -> bytes:
    """A press whose full cyan is the Lab value ``solid`` (L*, a*, b*), and everything else white."""
    table = np.full((2, 2, 2, 2, 3), [255, 128, 128], np.uint8)
    lightness, a, b = solid
    table[1, 0, 0, 0] = [round(lightness * 2.55), a + 128, b + 128]
    ramp = bytes([*range(256)])
    unit = b"".join(struct.pack(">i", round(65536 * v)) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + ramp * 4 + table.tobytes() + ramp * 3
    return profile_of("CMYK", "Lab ", "prtr", [(b"A2B0", lut), (b"A2B1", lut)])


def profile_of(space: str, connection: str, kind: str, tags: list[tuple[bytes, bytes]]) -> bytes:
    """An ICC profile of these tags."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"cprt", b"text\0\0\0\0-\0"), (b"wtpt", white), *tags]
    offset, directory, bodies = 132 + 12 * len(tags), b"", b""
    for signature, body in tags:
        directory += signature + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    header = struct.pack(">I4xI", offset + len(bodies), 0x02400000) + f"{kind}{space}{connection}".encode()
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + bodies


def linear_grey_profile() -> bytes:
    return matrix_profile(_SRGB, gamma_curve(1.0), grey=True)
