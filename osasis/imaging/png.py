"""PNG: the chunks that pixels and colours need, checked; all others are left out before a decoder sees the file."""

import struct
import zlib
from dataclasses import dataclass, field

from osasis.errors import ImageRejected
from osasis.imaging.profiles import Chromaticities, Cicp

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000
MOST_PROFILE_BYTES = 8 << 20

_GREY, _RGB = 0, 2
_CRITICAL = frozenset([b"IHDR", b"PLTE", b"IDAT", b"IEND"])
_COLOURS = frozenset([b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM"])
_READ = frozenset([b"tRNS", b"eXIf", *_COLOURS])
"""The ancillary chunks that matter here; time, animation, private ones and most text do not."""

_TEXTS = frozenset([b"tEXt", b"zTXt", b"iTXt"])
_ORIENTED = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of texts that may hold the orientation."""

_MOST_TEXT = 1 << 18


@dataclass
class Png:
    """What is left of a file: ``data`` has pixels, palette, transparency and EXIF; the rest was read here.

    Attributes:
        transparent: the one transparent value of grey or of 16-bit colours, in the file's own depth; a decoder of 8
            bits cannot find it. Removed from ``data``.
    """

    data: bytes = b""
    depth: int = 8
    transparent: tuple[int, ...] | None = None
    profile: bytes | None = None
    cicp: Cicp | None = None
    srgb: bool = False
    gamma: float | None = None
    chromaticities: Chromaticities | None = None
    notes: list[str] = field(default_factory=list)


def read_png(data: bytes) -> Png:
    """Check the chunks and keep what is needed.

    Raises:
        ImageRejected: kind is "truncated", "damaged" or "too-costly".
    """
    png, kept, seen = Png(), [SIGNATURE], set[bytes]()
    for kind, body in _chunks(data, png.notes):
        if kind in _READ and kind in seen:
            continue  # each may stand once; the first counts
        if kind == b"IHDR":
            if seen or len(body) != 13:
                raise ImageRejected("damaged", "PNG: its header (IHDR) is not the first chunk, or not 13 bytes long")
            png.depth, colour_type = body[8:10]
        elif not seen:
            raise ImageRejected("damaged", "PNG: its first chunk is not the header (IHDR)")
        seen.add(kind)
        if kind in _TEXTS:
            kept += _orientation_text(kind, body)
            continue
        if kind in _COLOURS:
            _read_colour(png, kind, body)
        elif kind == b"tRNS" and (colour_type == _GREY or (colour_type == _RGB and png.depth == 16)):
            png.transparent = struct.unpack(f">{len(body) // 2}H", body[: len(body) // 2 * 2]) or None
        else:
            kept.append(_chunk(kind, body))
    if b"IDAT" not in seen:
        raise ImageRejected("truncated", "PNG: the file ends before the first pixel")
    if b"IEND" not in seen:
        png.notes.append("PNG: the end marker (IEND) is missing")
        kept.append(_chunk(b"IEND", b""))
    png.data = b"".join(kept)
    return png


def _chunks(data: bytes, notes: list[str]) -> list[tuple[bytes, bytes]]:
    """The chunks that are read here or kept, up to IEND."""
    found: list[tuple[bytes, bytes]] = []
    at, count, pixels_seen = len(SIGNATURE), 0, False
    while at < len(data):
        count += 1
        if count > MOST_CHUNKS:
            raise ImageRejected("too-costly", f"PNG: more than {MOST_CHUNKS} chunks")
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            if pixels_seen and kind != b"IDAT":
                break  # cut short after the last pixel
            raise ImageRejected("truncated", f"PNG: the file ends inside its chunk {_name(kind)}")
        if kind in _CRITICAL or kind in _READ or (kind in _TEXTS and data.startswith(_ORIENTED, at + 8)):
            body = data[at + 8 : end]
            if zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[end : end + 4]):
                found.append((kind, body))
            elif kind in _CRITICAL and kind != b"IEND":
                raise ImageRejected("damaged", f"PNG: the checksum of its chunk {_name(kind)} is wrong")
            else:
                notes.append(f"PNG: the checksum of its chunk {_name(kind)} is wrong; left out")
        elif not kind[0] & 0x20:
            raise ImageRejected("damaged", f"PNG: its chunk {_name(kind)} is not known, yet marked as needed")
        elif zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            notes.append(f"PNG: the checksum of its chunk {_name(kind)} is wrong; left out")
        pixels_seen = pixels_seen or kind == b"IDAT"
        at = end + 4
        if kind == b"IEND":
            break
    return found


def _orientation_text(kind: bytes, body: bytes) -> list[bytes]:
    """The chunk, unpacked if need be; none where it is large or odd."""
    keyword, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        try:
            text = zlib.decompressobj().decompress(rest[1:], _MOST_TEXT + 1)
        except zlib.error:
            return []
        kind, body = b"tEXt", keyword + b"\0" + text
    if len(body) > _MOST_TEXT or (kind == b"iTXt" and rest[:1] != b"\0"):
        return []
    return [_chunk(kind, body)]


def _read_colour(png: Png, kind: bytes, body: bytes) -> None:
    try:
        if kind == b"iCCP":
            png.profile = _profile(body)
        elif kind == b"cICP":
            png.cicp = Cicp(*struct.unpack(">4B", body))
        elif kind == b"sRGB":
            png.srgb = True
        elif kind == b"gAMA":
            png.gamma = struct.unpack(">I", body)[0] / 100_000
        else:
            png.chromaticities = Chromaticities(*(value / 100_000 for value in struct.unpack(">8I", body)))
    except (struct.error, ValueError, zlib.error) as error:
        png.notes.append(f"PNG: its chunk {_name(kind)} cannot be read ({error}); left out")


def _profile(body: bytes) -> bytes:
    _, _, rest = body.partition(b"\0")
    decompressor = zlib.decompressobj()
    profile = decompressor.decompress(rest[1:], MOST_PROFILE_BYTES)
    if decompressor.unconsumed_tail:
        raise ValueError(f"the profile has more than {MOST_PROFILE_BYTES} bytes")
    if not decompressor.eof:
        raise ValueError("the profile is cut short")
    return profile


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace") if kind.isalpha() else repr(kind)
