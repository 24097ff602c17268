"""Colour profiles that Pillow does not hand out: of BMP (version 5) and of GIF."""

_GIF_PROFILE = b"\x21\xff\x0bICCRGBG1012"


def embedded_profile(name: str | None, data: bytes) -> bytes | None:
    """The profile in a BMP or GIF, or None."""
    if name == "BMP":
        return _of_bmp(data)
    return _of_gif(data) if name == "GIF" else None


def _of_bmp(data: bytes) -> bytes | None:
    header = data[14:138]
    if len(header) < 124 or int.from_bytes(header[:4], "little") < 124 or header[56:60] != b"DEBM":
        return None
    offset, size = (int.from_bytes(header[at : at + 4], "little") for at in (112, 116))
    return data[14 + offset : 14 + offset + size] or None


def _of_gif(data: bytes) -> bytes | None:
    at = data.find(_GIF_PROFILE)
    if at < 0:
        return None
    at += len(_GIF_PROFILE)
    parts = []
    while at < len(data) and (length := data[at]):
        parts.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return b"".join(parts) or None
