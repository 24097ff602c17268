"""Styles with pictures to show, without any training: sheets of plain colours, photographs red and styles blue."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from catalog.gallery import GalleryReport, write_gallery
from catalog.probes import PROBE_SET, PROBE_SETS
from catalog.schema import StyleVersion
from cluster.storage import Storage
from tests.support.hostile import encoded

PHOTO, STYLE, REFERENCE = (200, 30, 30), (30, 30, 200), (30, 160, 30)
SIDE = 16
PROBES = len(PROBE_SETS[PROBE_SET])


@cache
def sheet(side: int = SIDE, shade: int = 0) -> bytes:
    """A preview; the columns differ a little, so that one can tell them."""
    image = Image.new("RGB", (PROBES * side, 2 * side))
    for i in range(PROBES):
        for row, (r, g, b) in enumerate((PHOTO, STYLE)):
            image.paste((r, g + 10 * i, (b + shade) % 256), (i * side, row * side, (i + 1) * side, (row + 1) * side))
    return encoded(image, "PNG")


@cache
def reference() -> bytes:
    return encoded(Image.new("RGB", (SIDE, SIDE), REFERENCE), "PNG")


def version_of(storage: Storage, number: int, *, previewed: bool = True, **fields: Any) -> StyleVersion:
    """Version 1 of ``style-<number>``, made ``number`` hours into 2026; every fortieth has the same pictures."""
    style_id = f"style-{number:04d}"
    name = f"pictures/{number % 40}"
    if not storage.exists(f"{name}/reference.png"):
        storage.write_bytes(f"{name}/preview.png", sheet(shade=number % 40))
        storage.write_bytes(f"{name}/reference.png", reference())
    if previewed:
        fields = {"preview_uri": storage.child_uri(f"{name}/preview.png"), "probe_set": PROBE_SET} | fields
    given = {
        "style_id": style_id, "version": 1, "created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number),
        "base_name": "mini64" if number % 2 else "faces64", "base_fingerprint": "f" * 16,
        "checkpoint_uri": storage.child_uri(f"{name}/style.safetensors"), "checkpoint_sha256": "0" * 64,
        "checkpoint_bytes": 10_000_000, "preset": "official", "train_config": {"iterations": 60},
        "reference_uri": storage.child_uri(f"{name}/reference.png"), "reference_sha256": "0" * 64,
        "metrics": {"structure": round(0.5 + number * 37 % 50 / 100, 2), "loss_total": float(number)},
        "tags": ["oil" if number % 3 else "ink", "warm" if number % 5 else "cold"], "run_id": "run", "device": "cpu",
        "train_seconds": 60.0,
    }  # fmt: skip
    return StyleVersion.model_validate(given | fields)


def make_gallery(folder: Path, versions: list[StyleVersion], **options: Any) -> tuple[Path, GalleryReport]:
    """The page of these versions, and what became of its pictures."""
    page = folder / "gallery.html"
    given = {"title": "Styles", "source": "runs/demo"} | options
    return page, write_gallery(Storage.open(page), versions, **given)
