"""The training images of a base: decoded once by Ray Data, kept as one array in storage."""

import csv
import io
from typing import Any

import numpy as np
import ray.data

from cluster.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError
from osasis.errors import ImageRejected
from osasis.image import decode_image, fit

Row = dict[str, str]


def read_table(images: Storage, table: Storage, split: str | None) -> list[Row]:
    """Rows of the caption table whose image exists; ``file`` is relative to ``images``.

    Raises:
        ConfigError: no such table, no ``file`` column, no row left, or files missing.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_bytes().decode())))
    except (StorageError, UnicodeDecodeError) as error:
        raise ConfigError(Problem("--table", str(error))) from error
    if rows and "file" not in rows[0]:
        raise ConfigError(Problem("--table", f"{table} has no column 'file'", f"it has {', '.join(rows[0])}"))
    rows = [row for row in rows if split is None or row.get("split") == split]
    if not rows:
        raise ConfigError(Problem("--table", f"{table} has no rows" + (f" of split {split!r}" if split else "")))
    present = set(images.list_files())
    missing = [row["file"] for row in rows if row["file"] not in present]
    if missing:
        raise ConfigError(Problem("--images", f"{len(missing)} files of the table are not in {images}: {missing[0]} …"))
    return rows


def list_images(images: Storage) -> list[Row]:
    """Every file below ``images``, without captions."""
    rows = [{"file": name} for name in images.list_files()]
    if not rows:
        raise ConfigError(Problem("--images", f"{images} holds no files"))
    return rows


def decode_images(images: Storage, rows: list[Row], size: int) -> tuple[np.ndarray, list[Row], list[str]]:
    """Centre-cropped squares uint8 [N, size, size, 3], their rows, and a line for each file that was left out."""

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        try:
            square, _ = fit(decode_image(images.read_bytes(row["file"])), size, "crop")
            return {"index": row["index"], "pixels": np.asarray(square), "error": ""}
        except (ImageRejected, StorageError) as error:
            return {"index": row["index"], "pixels": np.zeros((size, size, 3), np.uint8), "error": str(error)}

    items = [{"index": i, "file": row["file"]} for i, row in enumerate(rows)]
    decoded = sorted(ray.data.from_items(items).map(decode).iter_rows(), key=lambda item: item["index"])
    kept = [item for item in decoded if not item["error"]]
    rejected = [f"{rows[item['index']]['file']}: {item['error']}" for item in decoded if item["error"]]
    if not kept:
        raise ConfigError(Problem("--images", f"no usable image in {images}: {rejected[0]}"))
    return np.stack([item["pixels"] for item in kept]), [rows[item["index"]] for item in kept], rejected


def dump_array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
