"""The rows of the catalog: one for each trained version of a style, never changed."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from catalog.columns import STYLE_COLUMNS
from catalog.selector import STYLE_ID, check_style_id

StyleId = Annotated[str, StringConstraints(pattern=STYLE_ID), AfterValidator(check_style_id)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Tag = Annotated[str, StringConstraints(pattern=STYLE_ID)]

_JSON_COLUMNS = [name for name, column in STYLE_COLUMNS.items() if column.json]


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
    started_from: list[str] = Field(default_factory=list, exclude_if=lambda names: not names)
    """Versions that training began from, as ``id@version``; none: at the base."""


Status = Literal["ready", "deleted", "purging", "purged"]
"""``deleted`` is hidden and can be restored; ``purging`` and ``purged``: gc frees, or has freed, its files."""


class StyleVersion(NewStyle):
    """A registered version, with what later events say of it: tags and notes are those that hold now."""

    version: int = Field(ge=1)
    status: Status = "ready"
    created_at: AwareDatetime
    aliases: list[str] = Field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.style_id}@{self.version}"

    @classmethod
    def of(cls, new: NewStyle, version: int) -> Self:
        return cls(**new.model_dump(), version=version, created_at=datetime.now(UTC))

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """From a row of :class:`catalog.view.View` or of the table; columns of later versions are left."""
        known = {name: value for name, value in row.items() if name in cls.model_fields}
        known |= {name: json.loads(known[name]) for name in _JSON_COLUMNS}
        known |= {"metrics": dict(row["metrics"] or ()), "tags": row["tags"] or [], "notes": row["notes"] or ""}
        known |= {"started_from": row.get("started_from") or []}
        if known["created_at"].tzinfo is None:
            known["created_at"] = known["created_at"].replace(tzinfo=UTC)
        return cls(**known)

    def to_row(self) -> dict[str, Any]:
        """What the table keeps: aliases are events."""
        row = self.model_dump(exclude={"aliases"})
        return row | {name: json.dumps(row[name], sort_keys=True, allow_nan=False) for name in _JSON_COLUMNS}
