"""The gallery: one page to browse styles by, and its pictures in a folder beside it. Works from ``file://``.

``OUT.html`` holds everything but the pictures in ``OUT_files``; those are named by the version they belong to and the
URI they came from, so that a rerun fetches only what is new. The page loads nothing from anywhere else.
"""

import base64
import hashlib
import html
import io
import json
import re
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from string import Template
from typing import Any

from PIL import Image, UnidentifiedImageError

from catalog.probes import PROBE_SETS
from catalog.schema import StyleVersion
from cluster.storage import Storage, StorageError

FETCHED_AT_ONCE = 16

KEPT_BYTES = 400_000
"""Larger files, and kinds that browsers cannot show, become WebP of at most ``LONGEST_SIDE`` pixels."""
LONGEST_SIDE = 2048
MAX_PIXELS = 64_000_000

_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_READABLE = (*_SUFFIXES, "GIF", "BMP", "TIFF")
_OURS = re.compile(r"[a-z0-9-]+@[0-9]+-[0-9a-f]{12}\.(?:png|jpg|webp)")
_SHOWN = {
    "version", "aliases", "tags", "notes", "license", "preset", "metrics", "device", "train_seconds",
    "checkpoint_bytes", "train_config",
}  # fmt: skip


@dataclass
class GalleryReport:
    """What became of a gallery's pictures. ``missing``: a line for each that could not be had, with the reason."""

    styles: int
    fetched: int = 0
    kept: int = 0
    removed: int = 0
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Picture:
    """A picture that a page shows; ``columns`` of a preview's sheet, 0 for a picture that is none."""

    label: str
    uri: str
    columns: int = 0

    @property
    def stem(self) -> str:
        return f"{self.label}-{hashlib.sha256(self.uri.encode(errors='replace')).hexdigest()[:12]}"


def write_gallery(page: Storage, versions: Sequence[StyleVersion], *, title: str, source: str) -> GalleryReport:
    """Write ``page``, an ``….html``, and its pictures into ``…_files`` beside it; pictures no longer shown are removed.

    Args:
        source: the catalog's storage, for the commands shown.

    Raises:
        StorageError: the page's place cannot be written. Pictures that cannot be read are reported instead.
    """
    folder = Storage.open(page.uri.removesuffix(".html") + "_files")
    there = {name.rpartition(".")[0]: name for name in folder.list_files() if _OURS.fullmatch(name)}
    sheets = {str(version): _sheet(version) for version in versions}
    references = {str(version): _Picture(str(version), version.reference_uri) for version in versions}
    wanted = {picture.stem: picture for picture in (*sheets.values(), *references.values()) if picture}
    new = [picture for stem, picture in wanted.items() if stem not in there]
    report = GalleryReport(len(versions), kept=len(wanted) - len(new))
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        for picture, (name, problem) in zip(new, pool.map(lambda picture: _fetch(picture, folder), new), strict=True):
            if name:
                there[picture.stem] = name
                report.fetched += 1
            else:
                report.missing.append(f"{picture.label}: {picture.uri}: {problem}")

    beside = folder.uri.rpartition("/")[2]

    def link(picture: _Picture | None) -> str | None:
        return f"{beside}/{there[picture.stem]}" if picture and picture.stem in there else None

    styles = [
        _entry(version, source) | {"sheet": link(sheets[label]), "reference": link(references[label])}
        for version in versions
        for label in [str(version)]
    ]
    about = f"{len(versions)} versions from {source}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    page.write_bytes("", _page({"styles": styles, "probe_sets": PROBE_SETS}, title, about))
    for stem in there.keys() - wanted.keys():
        folder.delete(there[stem])
        report.removed += 1
    return report


def _sheet(version: StyleVersion) -> _Picture | None:
    columns = len(PROBE_SETS.get(version.probe_set or "", ()))
    return _Picture(str(version), version.preview_uri, columns) if version.preview_uri and columns else None


def _entry(version: StyleVersion, source: str) -> dict[str, Any]:
    command = ["python", "jobs/stylize.py", "--storage", source, "--styles", str(version)]
    return version.model_dump(mode="json", include=_SHOWN) | {
        "id": version.style_id,
        "base": version.base_name,
        "fingerprint": version.base_fingerprint,
        "created": version.created_at.astimezone(UTC).isoformat(),
        "probe_set": version.probe_set,
        "command": f"{shlex.join(command)} --input PHOTOS --output OUT",
    }


def _fetch(picture: _Picture, folder: Storage) -> tuple[str | None, str]:
    """(file name, "") of a picture written whole; (None, reason) where it cannot be read."""
    try:
        suffix, data = _for_page(Storage.open(picture.uri).read_bytes(), picture.columns)
    except UnidentifiedImageError:
        return None, f"no picture of a known kind ({', '.join(_READABLE)})"
    except (StorageError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        return None, str(error)  # Pillow raises a SyntaxError on broken PNG files
    name = f"{picture.stem}.{suffix}"
    folder.write_bytes(name, data)
    return name, ""


def _for_page(data: bytes, columns: int) -> tuple[str, bytes]:
    """(suffix, bytes) of a picture as the page can show it: as it is, or made smaller."""
    with Image.open(io.BytesIO(data), formats=_READABLE) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} × {height} pixels are too many")
        if columns and width * 2 != height * columns:
            raise ValueError(f"{width} × {height} pixels are not a preview of {columns} portraits")
        image.load()
        if image.format in _SUFFIXES and len(data) <= KEPT_BYTES:
            return _SUFFIXES[image.format], data
        smaller = image.convert("RGB")
    smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    smaller.save(buffer, "WEBP", quality=88)
    return "webp", buffer.getvalue()


def _page(data: dict[str, Any], title: str, about: str) -> bytes:
    """The page's bytes. Data stands in it as JSON in ASCII, where "<" is escaped: nothing in it can end the script."""
    folder = files("catalog") / "page"
    template, style, script = (
        (folder / name).read_text("utf-8") for name in ("gallery.html", "gallery.css", "gallery.js")
    )
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'"
    )
    text = Template(template).substitute(
        policy=policy,
        style=style,
        script=script,
        title=html.escape(title),
        footer=html.escape(about),
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    return text.encode(errors="replace")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
