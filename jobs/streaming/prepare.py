"""CPU stage: URI → bytes → square RGB pixels. One row out for every row in, whatever happens."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.streaming.inputs import Source
from osasis.errors import ImageRejected
from osasis.image import FitMode, decode_image, fit

WORK = pa.schema(
    [
        ("input_uri", pa.string()),
        ("key", pa.string()),
        ("locator", pa.string()),
        ("missing", pa.list_(pa.string())),
    ]
)
"""``missing``: labels of the variants that this input still lacks."""

PREPARED = pa.schema(
    [
        ("input_uri", pa.string()),
        ("key", pa.string()),
        ("missing", pa.list_(pa.string())),
        ("input_sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("transform", pa.string()),
        ("pixels", pa.binary()),  # S · S · 3 uint8; null where there is an error
        ("status", pa.string()),  # null, "rejected" or "failed"
        ("error_type", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Prepare:
    """Reads, decodes and fits a block of inputs."""

    source: Source
    size: int
    mode: FitMode
    max_pixels: int

    def __call__(self, work: pa.Table) -> pa.Table:
        """WORK → PREPARED."""
        return pa.Table.from_pylist([self.row(item) for item in work.to_pylist()], schema=PREPARED)

    def row(self, item: dict[str, Any]) -> dict[str, Any]:
        """One input. What cannot be read is "failed" (it may work later), what is no usable picture "rejected"."""
        row = {name: item[name] for name in ("input_uri", "key", "missing")}
        try:
            data = self.source.read(item["locator"])
        except Exception as error:
            return row | {"status": "failed", "error_type": "unreadable", "error": f"{type(error).__name__}: {error}"}
        row["input_sha256"] = hashlib.sha256(data).hexdigest()
        try:
            square, transform = fit(decode_image(data, max_pixels=self.max_pixels), self.size, self.mode)
        except ImageRejected as rejected:
            return row | {"status": "rejected", "error_type": rejected.kind, "error": str(rejected)}
        except Exception as error:
            return row | {"status": "failed", "error_type": type(error).__name__, "error": str(error)}
        return row | {
            "width": transform.original_width,
            "height": transform.original_height,
            "transform": transform.model_dump_json(),
            "pixels": square.tobytes(),
        }
