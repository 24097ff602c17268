"""Names of what stylize writes: ``images/<style>@<version>[~<prompt>]/<key>.png`` and the table ``manifest``.

Keys are derived from the names of inputs: safe as paths, and different for different inputs.
"""

import hashlib
import re
from urllib.parse import quote, urlsplit

MANIFEST = "manifest"
"""Where the manifest stands below the output."""

NO_STYLE = "none"
"""Selects the base alone, as version 0; no style can have this id."""

RUN_FLAGS = frozenset(
    {"input", "input_column", "input_format", "styles", "text", "output", "limit", "workers", "retry_failed", "dry_run"}
)
"""Flags of a stylize run that change which pictures are made, and nothing of how each comes out."""

PACKED = "packed"
"""Where shards stand below the output."""

_IMAGES = "images"
_LONGEST = 180
"""Characters of one path segment; file systems take 255 bytes, suffixes included."""


def variant_label(style_id: str, version: int, text: str | None = None) -> str:
    """``id@version`` or ``id@version~prompt``: the folder of its pictures, safe as a path."""
    style = f"{style_id}@{version}"
    return style if text is None else f"{style}~{text_key(text)}"


def picture_name(label: str, key: str, suffix: str = ".png", *, hashed: bool = False) -> str:
    """Where the picture of one input in one variant stands below the output; ``hashed``: in one of 65,536 folders."""
    *folders, last = key.split("/")
    spread = [(digest := _digest(key))[:2], digest[2:4]] if hashed else []
    return "/".join([_IMAGES, label, *spread, *(_not_ending(folder, suffix) for folder in folders), f"{last}{suffix}"])


def shard_folder(label: str, run_id: str) -> str:
    """Where the shards of one variant by one run stand below the output."""
    return f"{PACKED}/{label}/{run_id}"


def member_name(key: str) -> str:
    """Name of a WebDataset sample, which ends at its first dot; different for different keys."""
    *folders, last = key.split("/")
    return "/".join([*folders, last.replace(".", "%2E")])


def output_of(picture_uri: str) -> str | None:
    """The URI of the output that a picture stands in; None where it has no name of :func:`picture_name`'s form."""
    found = re.fullmatch(rf"(.+)/(?:{_IMAGES}|{PACKED})/[a-z0-9-]+@[0-9]+(?:~[^/]+)?/.+\.[a-z]+(?:#.+)?", picture_uri)
    return found and found[1]


def relative_key(name: str) -> str:
    """Key of an input by its name relative to the input folder, extension included; "/" keeps its meaning.

    Everything but letters, digits, ``_ . -`` is percent-encoded; a segment that would be too long ends in "~" and a
    hash.
    """
    *folders, last = name.split("/")
    return "/".join([*(_not_ending(_segment(folder), ".png") for folder in folders), _segment(last)])


def _not_ending(folder: str, suffix: str) -> str:
    """A folder "a.png/" must not stand where the picture of "a" stands."""
    return f"{folder.removesuffix(suffix)}%2E{suffix[1:]}" if folder.endswith(suffix) else folder


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
