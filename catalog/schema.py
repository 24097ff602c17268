"""The rows of the catalog: one for each trained version of a style, never changed."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from catalog.selector import STYLE_ID, check_style_id

StyleId = Annotated[str, StringConstraints(pattern=STYLE_ID), AfterValidator(check_style_id)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Tag = Annotated[str, StringConstraints(pattern=STYLE_ID)]

_JSON_COLUMNS = ("train_config", "software")


class NewStyle(BaseModel):
    """A trained style about to be registered: everything but what the catalog gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    style_id: StyleId
    base_name: str
    base_fingerprint: str
    checkpoint_uri: str
    checkpoint_sha256: Sha256
    checkpoint_bytes: int = Field(gt=0)
    checkpoint_format: str = "safetensors"
    preset: str
    train_config: dict[str, Any]
    reference_uri: str
    reference_sha256: Sha256
    photo_uri: str | None = None
    preview_uri: str | None = None
    probe_set: str | None = None
    """The portraits that the preview shows (see :mod:`catalog.probes`); None: others, or no preview."""
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    clip_embedding: list[FiniteFloat] | None = None
    clip_encoder: str | None = None
    """Which CLIP made the embedding; embeddings of others do not compare with it."""
    tags: list[Tag] = Field(default_factory=list)
    notes: str = ""
    license: str = ""
    run_id: str
    train_seconds: float = Field(ge=0)
    device: str
    software: dict[str, str] = Field(default_factory=dict)


class StyleVersion(NewStyle):
    """A registered version."""

    version: int = Field(ge=1)
    status: Literal["ready"] = "ready"
    created_at: AwareDatetime

    def __str__(self) -> str:
        return f"{self.style_id}@{self.version}"

    @classmethod
    def of(cls, new: NewStyle, version: int) -> Self:
        return cls(**new.model_dump(), version=version, created_at=datetime.now(UTC))

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """From a row of :data:`SCHEMA` as ``pyarrow.Table.to_pylist`` gives it; columns of later versions are left."""
        known = {name: value for name, value in row.items() if name in cls.model_fields}
        parsed = {name: json.loads(known[name]) for name in _JSON_COLUMNS}
        return cls(**(known | parsed | {"metrics": dict(row["metrics"] or ()), "tags": row["tags"] or []}))

    def to_row(self) -> dict[str, Any]:
        row = self.model_dump()
        return row | {name: json.dumps(row[name], sort_keys=True, allow_nan=False) for name in _JSON_COLUMNS}


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
