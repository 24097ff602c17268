"""The training images of a base: decoded once by Ray Data, kept as one array in storage."""

import io
from typing import Any

import numpy as np
import ray.data

from cluster.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError
from jobs.pretraining.tables import Row
from osasis.errors import ImageRejected
from osasis.image import decode_image, fit


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
