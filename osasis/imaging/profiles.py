"""ICC profiles for colours that a file states by numbers: primaries and a transfer curve."""

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from osasis.errors import ImageRejected


class Cicp(NamedTuple):
    """Code points of ITU-T H.273, as in PNG's cICP."""

    primaries: int
    transfer: int
    matrix: int
    full_range: int


class Chromaticities(NamedTuple):
    """CIE x, y of white and of the primaries."""

    white_x: float
    white_y: float
    red_x: float
    red_y: float
    green_x: float
    green_y: float
    blue_x: float
    blue_y: float


Curve = Callable[[np.ndarray], np.ndarray]
"""Stored value in [0, 1] → linear light in [0, 1]."""

_D65 = (0.3127, 0.3290)
SRGB = Chromaticities(*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
DISPLAY_P3 = Chromaticities(*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE_RGB = Chromaticities(*_D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
BT2020 = Chromaticities(*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_PRIMARIES = {
    1: SRGB,
    4: Chromaticities(0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: Chromaticities(*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: Chromaticities(*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: Chromaticities(*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: BT2020,
    11: Chromaticities(0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: DISPLAY_P3,
}
"""H.273, Table 2."""

_HDR = {16: "PQ", 18: "HLG"}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def srgb_curve(v: np.ndarray) -> np.ndarray:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def bt709_curve(v: np.ndarray) -> np.ndarray:
    """Inverse of the camera curve of BT.709, BT.601 and BT.2020."""
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def gamma_curve(exponent: float) -> Curve:
    return lambda v: v**exponent


_TRANSFERS: dict[int, Curve] = {
    1: bt709_curve, 4: gamma_curve(2.2), 5: gamma_curve(2.8), 6: bt709_curve, 8: gamma_curve(1.0), 13: srgb_curve,
    14: bt709_curve, 15: bt709_curve,
}  # fmt: skip
"""H.273, Table 3."""


def of_cicp(cicp: Cicp, *, grey: bool) -> bytes | None:
    """The profile that code points stand for; None for sRGB itself.

    Raises:
        ImageRejected: "unsupported": high dynamic range, video range, or code points that are not known.
    """
    if cicp.transfer in _HDR:
        raise ImageRejected("unsupported", f"high dynamic range ({_HDR[cicp.transfer]}): save it in standard range")
    primaries, curve = _PRIMARIES.get(cicp.primaries), _TRANSFERS.get(cicp.transfer)
    if primaries is None or curve is None or cicp.matrix != 0 or cicp.full_range != 1:
        raise ImageRejected(
            "unsupported", f"the colours of cICP {'/'.join(map(str, cicp))} are not known: save as sRGB"
        )
    return None if (primaries, curve) == (SRGB, srgb_curve) else matrix_profile(primaries, curve, grey=grey)


def of_gamma(gamma: float | None, chromaticities: Chromaticities | None, *, grey: bool) -> bytes | None:
    """The profile of PNG's gAMA and cHRM; None where they come to sRGB.

    Raises:
        ValueError: numbers that no display has.
    """
    if gamma is not None and not 0.1 <= gamma <= 5:
        raise ValueError(f"gAMA is {gamma:g}")
    curve = srgb_curve if gamma is None or abs(gamma - 0.45455) < 0.0005 else gamma_curve(1 / gamma)
    primaries = SRGB if chromaticities is None else chromaticities
    if max(abs(a - b) for a, b in zip(primaries, SRGB, strict=True)) < 0.002:
        primaries = SRGB
    return None if (primaries, curve) == (SRGB, srgb_curve) else matrix_profile(primaries, curve, grey=grey)


def matrix_profile(primaries: Chromaticities, curve: Curve, *, grey: bool = False) -> bytes:
    """An ICC profile (version 2) of these primaries, adapted to D50; ``grey``: of the curve alone.

    Raises:
        ValueError: primaries that make no colour space.
    """
    table = np.rint(curve(np.linspace(0, 1, 4096)) * 65535).clip(0, 65535).astype(">u2").tobytes()
    tone = b"curv" + bytes(4) + struct.pack(">I", 4096) + table
    tags = [("wtpt", _xyz(_D50))]
    if grey:
        return _packed("GRAY", [*tags, ("kTRC", tone)])
    columns = _adapted(primaries)
    tags += [(f"{name}XYZ", _xyz(column)) for name, column in zip("rgb", columns.T, strict=True)]
    return _packed("RGB ", [*tags, *((f"{name}TRC", tone) for name in "rgb")])


def _adapted(primaries: Chromaticities) -> np.ndarray:
    """Columns: XYZ of red, green and blue relative to D50."""
    white, *rgb = (np.array(primaries).reshape(4, 2)).tolist()
    if min(y for _, y in (white, *rgb)) <= 0:
        raise ValueError("a primary has no luminance")
    unscaled = np.array([[x / y, 1, (1 - x - y) / y] for x, y in rgb]).T
    target = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    if abs(np.linalg.det(unscaled)) < 1e-3:
        raise ValueError("the primaries lie on one line")
    matrix = unscaled * np.linalg.solve(unscaled, target)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ target)) @ _BRADFORD
    return adaptation @ matrix


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + np.rint(values * 65536).astype(">i4").tobytes()


def _packed(space: str, tags: list[tuple[str, bytes]]) -> bytes:
    offset = 132 + 12 * (len(tags) + 2)
    text = b"text" + bytes(4) + b"-\0"
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"-\0" + bytes(79)
    directory, bodies = b"", b""
    for signature, body in [("desc", name), ("cprt", text), *tags]:
        padded = body + bytes(-len(body) % 4)
        directory += signature.encode() + struct.pack(">II", offset + len(bodies), len(body))
        bodies += padded
    header = struct.pack(">I4xI4s4s4s", offset + len(bodies), 0x02400000, b"mntr", space.encode(), b"XYZ ")
    header += (
        struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + np.rint(_D50 * 65536).astype(">i4").tobytes()
    )
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags) + 2) + directory + bodies
