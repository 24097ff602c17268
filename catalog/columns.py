"""The columns of the catalog's two Delta tables."""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("style_id", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("base_name", pa.string(), nullable=False),
        pa.field("base_fingerprint", pa.string(), nullable=False),
        pa.field("checkpoint_uri", pa.string(), nullable=False),
        pa.field("checkpoint_sha256", pa.string(), nullable=False),
        pa.field("checkpoint_bytes", pa.int64(), nullable=False),
        pa.field("checkpoint_format", pa.string(), nullable=False),
        pa.field("preset", pa.string(), nullable=False),
        pa.field("train_config", pa.string(), nullable=False),
        pa.field("reference_uri", pa.string(), nullable=False),
        pa.field("reference_sha256", pa.string(), nullable=False),
        pa.field("photo_uri", pa.string()),
        pa.field("preview_uri", pa.string()),
        pa.field("metrics", pa.map_(pa.string(), pa.float64())),
        pa.field("clip_embedding", pa.list_(pa.float32())),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("notes", pa.string()),
        pa.field("license", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("train_seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("software", pa.string()),
        pa.field("clip_encoder", pa.string()),
        pa.field("probe_set", pa.string()),
    ]
)
"""``catalog``: one immutable row for each trained version."""

EVENTS_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("happened_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("author", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("style_id", pa.string(), nullable=False),
        pa.field("version", pa.int64()),
        pa.field("name", pa.string()),
        pa.field("text", pa.string()),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
    ]
)
"""``catalog_events``: what was later said of versions. Of a subject's events the one with the highest ``seq`` holds."""
