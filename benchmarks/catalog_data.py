"""Many styles for benchmarks/catalog_scale.py, put into a catalog's table at once instead of by registration."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from catalog.schema import NewStyle
from catalog.store import TABLE, StyleCatalog
from cluster.storage import Storage

BASES = ("mini64", "faces64", "sketch64", "film64")
TAGS = ("oil", "print", "ink", "portrait", "sea", "warm", "cold", "gouache")
ENCODER = "0" * 16
_ROWS_PER_COMMIT = 10_000


def style_id(number: int) -> str:
    return f"style-{number:06d}"


def fill(storage: Storage, styles: int, dim: int) -> None:
    """``style-000000`` … with one version each, made at even steps from January to December 2026.

    The first is registered as any style is, which makes the tables; embeddings are random unit vectors.
    """
    checkpoint = b"a checkpoint"
    storage.write_bytes("checkpoints/any.safetensors", checkpoint)
    first = _first(storage, len(checkpoint))
    StyleCatalog.open(storage).register(first.model_copy(update={"style_id": style_id(styles)}))
    for start in range(0, styles, _ROWS_PER_COMMIT):
        rows = _rows(first, start, min(start + _ROWS_PER_COMMIT, styles), styles, dim)
        write_deltalake(storage.delta_uri(TABLE), rows, mode="append", schema_mode="merge")


def _first(storage: Storage, size: int) -> NewStyle:
    info = storage.sha256("checkpoints/any.safetensors")
    return NewStyle(
        style_id=style_id(0), base_name=BASES[0], base_fingerprint="f" * 16,
        checkpoint_uri=storage.child_uri("checkpoints/any.safetensors"), checkpoint_sha256=info, checkpoint_bytes=size,
        preset="official", train_config={"iterations": 200, "learning_rate": 5e-6, "seed": 0, "t0_ratio": 0.5},
        reference_uri=storage.child_uri("reference.png"), reference_sha256="0" * 64, run_id="20260101T000000Z-00000000",
        train_seconds=60.0, device="cpu", notes="one of many", clip_encoder=ENCODER,
    )  # fmt: skip


def _rows(first: NewStyle, start: int, stop: int, styles: int, dim: int) -> pa.Table:
    count, rng = stop - start, np.random.default_rng(start)
    numbers = np.arange(start, stop)
    embeddings = rng.standard_normal((count, dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    made = np.datetime64("2026-01-01", "us") + (numbers * (365 * 86_400_000_000 // styles)).astype("timedelta64[us]")
    metrics = [
        [("structure", s), ("style_distance", d), ("loss_total", 10 * d)]
        for s, d in zip(rng.random(count).tolist(), rng.random(count).tolist(), strict=True)
    ]
    columns = {
        "style_id": [style_id(number) for number in numbers.tolist()],
        "version": np.ones(count, np.int64),
        "status": ["ready"] * count,
        "created_at": pa.array(made, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "base_name": [BASES[number % len(BASES)] for number in numbers.tolist()],
        "tags": [[TAGS[n % 8], TAGS[(n // 8) % 7 + 1]] for n in numbers.tolist()],
        "metrics": pa.array(metrics, pa.map_(pa.string(), pa.float64())),
        "clip_embedding": pa.FixedSizeListArray.from_arrays(embeddings.ravel(), dim).cast(pa.list_(pa.float32())),
    }  # fmt: skip
    common = first.model_dump(exclude=set(columns))
    common |= {name: json.dumps(common[name], sort_keys=True) for name in ("train_config", "software")}
    columns |= {name: [value] * count for name, value in common.items() if value is not None}
    return pa.table(columns)


def query_vector(dim: int) -> np.ndarray:
    """[dim] float32 of length 1; stands for an encoded text."""
    vector = np.random.default_rng(10**6).standard_normal(dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def parquet_files(storage: Storage) -> list[str]:
    """The table's files, as anybody could read them."""
    return DeltaTable(storage.delta_uri(TABLE)).file_uris()


def since(month: int) -> datetime:
    return datetime(2026, month, 1, tzinfo=UTC)
