"""Names of outputs, derived from names of inputs: safe as paths, and different for different inputs."""

import hashlib
import re
from urllib.parse import quote, urlsplit

_LONGEST = 180
"""Characters of one path segment; file systems take 255 bytes, suffixes included."""


def relative_key(name: str) -> str:
    """Key of an input by its name relative to the input folder, extension included; "/" keeps its meaning.

    Everything but letters, digits, ``_ . -`` is percent-encoded; a segment that would be too long ends in "~" and a
    hash.
    """
    *folders, last = name.split("/")
    # A folder "a.png/" must not stand where the picture of "a" stands.
    safe_folders = [f"{key[:-4]}%2E{key[-3:]}" if key.endswith(".png") else key for key in map(_segment, folders)]
    return "/".join([*safe_folders, _segment(last)])


def uri_key(uri: str) -> str:
    """Key of an input by its whole URI: its file name for people, a hash of the URI for certainty."""
    stem = urlsplit(uri).path.rstrip("/").rpartition("/")[2]
    return f"{_segment(stem)[:80]}-{_digest(uri)}"


def text_key(text: str) -> str:
    """Name of a prompt's folder: its words joined by "-"; a hash follows where that is not the whole of it."""
    words = "-".join(re.findall(r"[a-z0-9]+", text.casefold()))[:60]
    return words if words.replace("-", " ") == text else f"{words}~{_digest(text)[:8]}"


def _segment(name: str) -> str:
    encoded = quote(name, safe="", errors="surrogateescape").replace("~", "%7E")
    if not encoded.strip("."):  # "", ".", "..": never a path of its own
        encoded = encoded.replace(".", "%2E") or "%"
    if len(encoded) > _LONGEST:
        encoded = f"{encoded[: _LONGEST - 18]}~{_digest(name)}"
    return encoded


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
