"""What passes between the stages of a streaming job. The unit is a chunk: inputs that one worker takes at once.

    CHUNK --decode--> DECODED --encode, stylize, write--> FINISHED --record--> rows of the manifest

Each row of CHUNK and DECODED is a whole chunk, its inputs nested; each row of FINISHED holds the outcomes of one batch.
"""

from typing import Any

import pyarrow as pa

from jobs.streaming.spent import SPENT

Row = dict[str, Any]

_INPUT = [("input_uri", pa.string()), ("key", pa.string())]
_FILE = [
    ("input_sha256", pa.string()),
    ("width", pa.int64()),
    ("height", pa.int64()),
    ("transform", pa.string()),
    ("notes", pa.string()),  # what was mended or left out in decoding
]
_VERDICT = [
    ("status", pa.string()),
    ("error_type", pa.string()),
    ("error", pa.string()),
]

WORK = pa.struct([*_INPUT, ("locator", pa.string()), ("missing", pa.list_(pa.string()))])
"""An input to be done; ``missing``: labels of the variants that it lacks."""

PICTURE = pa.struct(
    [
        *_INPUT, *_FILE, *_VERDICT,
        ("locator", pa.string()),
        ("missing", pa.list_(pa.string())),
        ("pixels", pa.binary()),
    ]
)  # fmt: skip
"""An input decoded: S · S · 3 uint8 of ``pixels``, or null where ``status`` is "rejected" or "failed"."""

SCORES = ("structure", "style")
"""Of a picture, by --scores; null where it could not be scored."""

OUTCOME = pa.struct(
    [
        *_INPUT, *_FILE, *_VERDICT,
        *((name, pa.float64()) for name in SCORES),
        ("variant", pa.string()),
        ("output_uri", pa.string()),
        ("output_sha256", pa.string()),
        ("output_offset", pa.int64()),
        ("output_bytes", pa.int64()),
        ("seconds", pa.float64()),
    ]
)  # fmt: skip
"""What became of one input in one variant (its label): "done", "rejected" or "failed"."""


def chunk_schema(of: pa.StructType) -> pa.Schema:
    """A chunk of inputs."""
    return pa.schema([("chunk", pa.int64()), ("inputs", pa.list_(of))])


def finished_schema(outcome: pa.StructType = OUTCOME) -> pa.Schema:
    """Outcomes of a batch, the worker that they came from, and what its time was spent on since the last."""
    return pa.schema(
        [("chunk", pa.int64()), ("worker", pa.string()), ("outcomes", pa.list_(outcome)), ("spent", SPENT)]
    )


CHUNK = chunk_schema(WORK)
DECODED = chunk_schema(PICTURE)


def one_row(row: Row, schema: pa.Schema) -> pa.Table:
    """A table of this row; fields that the schema lacks are dropped."""
    return pa.Table.from_pylist([row], schema=schema)
