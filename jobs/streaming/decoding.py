"""Stage "decode": URI → bytes → square RGB pixels.

Takes CHUNK, gives DECODED: one input out for every input in. Needs a share of a CPU, and the inputs' storage. What
cannot be read is "failed" (it may work later), what is no usable picture "rejected"; both go on as they are. An input
that kills its process is found by the ledger (:mod:`jobs.streaming.failures`).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from cluster.runtime.metrics import count, timed
from cluster.storage import StorageUnavailable
from jobs.streaming.failures import RunStopped, together
from jobs.streaming.ledger import Ledger
from jobs.streaming.listing import Source
from jobs.streaming.rows import DECODED, Row, one_row
from osasis.errors import ImageRejected
from osasis.image import FitMode, decode_image, fit

WORKER_DIED: Row = {
    "status": "failed",
    "error_type": "worker-died",
    "error": "the process working on this input alone died (out of memory, or a crash in a native library)",
}


@dataclass(frozen=True)
class Decode:
    """Reads, decodes and fits the inputs of a chunk."""

    source: Source
    size: int
    mode: FitMode
    max_pixels: int

    def __call__(self, chunk: pa.Table, ledger: Ledger) -> pa.Table:
        """CHUNK → DECODED."""
        (row,) = chunk.to_pylist()
        unit = f"decode/{row['chunk']}"
        with timed("decode"):
            if together(ledger.begin(unit)):
                pictures = [self.picture(item) for item in row["inputs"]]
            else:
                pictures = [self._alone(item, f"{unit}/{i}", ledger) for i, item in enumerate(row["inputs"])]
        ledger.end(unit)
        for status, number in Counter(picture.get("status") or "decoded" for picture in pictures).items():
            count("osasis_pictures_total", number, status=status)
        return one_row({"chunk": row["chunk"], "inputs": pictures}, DECODED)

    def _alone(self, item: Row, unit: str, ledger: Ledger) -> Row:
        if ledger.begin(unit):  # not ended: it stays guilty, should another input kill the process
            return _known(item) | WORKER_DIED
        picture = self.picture(item)
        ledger.end(unit)
        return picture

    def picture(self, item: Row) -> Row:
        """WORK → PICTURE.

        Raises:
            RunStopped: storage cannot be read at present, which says nothing about the input.
        """
        row = _known(item)
        try:
            data = self.source.read(item["locator"])
        except StorageUnavailable as error:
            raise RunStopped(f"an input cannot be read: {error}") from None
        except Exception as error:
            return row | {
                "status": "failed",
                "error_type": "unreadable",
                "error": in_text(f"{type(error).__name__}: {error}"),
            }
        row["input_sha256"] = hashlib.sha256(data).hexdigest()
        try:
            upright = decode_image(data, max_pixels=self.max_pixels)
            square, transform = fit(upright, self.size, self.mode)
        except ImageRejected as rejected:
            return row | {"status": "rejected", "error_type": rejected.kind, "error": in_text(str(rejected))}
        except Exception as error:
            return row | {"status": "failed", "error_type": type(error).__name__, "error": in_text(str(error))}
        return row | {
            "width": transform.original_width,
            "height": transform.original_height,
            "transform": transform.model_dump_json(),
            "notes": "; ".join(upright.info["notes"]) or None,
            "pixels": square.tobytes(),
        }


def in_text(message: str) -> str:
    """A message that can be stored: names of files may hold bytes that are no UTF-8."""
    return message.encode(errors="backslashreplace").decode()


def _known(item: Row) -> Row:
    return {name: item[name] for name in ("input_uri", "key", "locator", "missing")}
