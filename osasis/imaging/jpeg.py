"""JPEG: a look at the markers before a decoder runs: what kind it is, how many scans it has, whether it is whole."""

import re
from dataclasses import dataclass, field

from osasis.errors import ImageRejected

MOST_SCANS = 100
"""Progressive files of usual encoders have about ten."""

MOST_SCANNED_PIXELS = 2_000_000_000
"""Scans times pixels: each scan passes over the whole picture again."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])
_SOF, _SOS, _EOI = frozenset([*range(0xC0, 0xD0)]) - {0xC4, 0xC8, 0xCC}, 0xDA, 0xD9
_READABLE = frozenset([0xC0, 0xC1, 0xC2, 0xC9, 0xCA])
"""Baseline, extended and progressive, with Huffman or arithmetic coding."""


@dataclass
class Jpeg:
    """What the markers say. ``whole``: the end marker is there; ``missing``: coefficients that no scan has refined."""

    frame: int = 0
    precision: int = 8
    pixels: int = 0
    components: int = 0
    scans: int = 0
    whole: bool = False
    refined: dict[int, set[int]] = field(default_factory=dict)

    @property
    def every_scan(self) -> bool:
        """Whether the scans bring every coefficient to its last bit, as sequential files do by one scan each."""
        known = sum(len(coefficients) for coefficients in self.refined.values())
        return known == (64 if self.frame in (0xC2, 0xCA) else 1) * self.components


def read_jpeg(data: bytes) -> Jpeg:
    """Walk over the markers.

    Raises:
        ImageRejected: kind is "truncated", "unsupported" or "too-costly".
    """
    jpeg, at = Jpeg(), 2
    while marker := _MARKER.search(data, at):
        code, at = data[marker.start() + 1], marker.end()
        if code == _EOI:
            jpeg.whole = True
            break
        if code in _NO_LENGTH:
            continue
        length = int.from_bytes(data[at : at + 2])
        body, at = data[at + 2 : at + length], at + length
        if at > len(data) or length < 2:
            raise ImageRejected("truncated", "JPEG: the file ends inside its headers")
        if code in _SOF and not jpeg.frame:
            _frame(jpeg, code, body)
        elif code == _SOS:
            _scan(jpeg, body)
    if not jpeg.scans:
        raise ImageRejected("truncated", "JPEG: the file ends before the first pixel")
    return jpeg


def _frame(jpeg: Jpeg, code: int, body: bytes) -> None:
    if len(body) < 6:
        raise ImageRejected("damaged", "JPEG: its frame header is too short")
    jpeg.frame, jpeg.precision, jpeg.components = code, body[0], body[5]
    jpeg.pixels = int.from_bytes(body[1:3]) * int.from_bytes(body[3:5])
    if code not in _READABLE:
        raise ImageRejected("unsupported", f"JPEG of a lossless or hierarchical kind (SOF{code - 0xC0})")
    if jpeg.precision != 8:
        raise ImageRejected("unsupported", f"JPEG with {jpeg.precision} bits a channel: save it with 8")


def _scan(jpeg: Jpeg, body: bytes) -> None:
    jpeg.scans += 1
    if jpeg.scans > MOST_SCANS or jpeg.scans * jpeg.pixels > max(MOST_SCANNED_PIXELS, jpeg.pixels):
        raise ImageRejected("too-costly", f"JPEG: {jpeg.pixels} pixels in {jpeg.scans} scans or more")
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count:
        raise ImageRejected("damaged", "JPEG: a scan header is too short")
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    if jpeg.frame not in (0xC2, 0xCA):
        first, last, bits = 0, 0, 0
    if bits & 15 == 0:
        for component in body[1 : 1 + 2 * count : 2]:
            jpeg.refined.setdefault(component, set()).update(range(first, min(last, 63) + 1))


FILLER = b"\x5a\xa5\x33" * 4096 + b"\xff\xd9"
"""What stands in for missing data: pixels that depend on it are missing."""
