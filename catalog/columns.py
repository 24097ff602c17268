"""The catalog's columns, each said once: its type, whether the table stores it, and how later events change it.

Schemas of the Delta tables, what can be filtered and sorted by, and the SQL of :mod:`catalog.view` follow from these.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["text", "number", "time", "list", "json", "other"]

_FILE = "located({own}, r.style_id)"
"""A file's URI, which the table keeps relative to the storage where it is below it (:mod:`catalog.located`)."""

_KINDS: dict[str, Kind] = {
    "varchar": "text", "bigint": "number", "double": "number", "timestamp": "time", "varchar[]": "list",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """``type`` as DuckDB names it. ``{own}`` in ``sql`` stands for the stored value."""

    type: str
    required: bool = False
    stored: bool = True
    """False: told by events alone."""
    sql: str = "{own}"
    """Its value in the view."""
    events: str | None = None
    """The table of events that ``sql`` refers to."""
    json: bool = False
    compared: bool = True
    """Whether people can filter and sort by it."""

    @property
    def as_stored(self) -> bool:
        """Whether the table alone can answer conditions on it."""
        return self.events is None and not self.sql.startswith("located(")

    @property
    def kind(self) -> Kind:
        return "json" if self.json else _KINDS.get(self.type, "other")


def _text(**given: object) -> Column:
    return Column("varchar", **given)  # type: ignore[arg-type]


STYLE_COLUMNS = {
    "style_id": _text(required=True),
    "version": Column("bigint", required=True),
    "status": _text(required=True, sql="coalesce(states.state, {own})", events="states"),
    "created_at": Column("timestamp", required=True, sql="make_timestamp(epoch_us({own}))"),
    "base_name": _text(required=True),
    "base_fingerprint": _text(required=True),
    "checkpoint_uri": _text(required=True, sql=_FILE),
    "checkpoint_sha256": _text(required=True),
    "checkpoint_bytes": Column("bigint", required=True),
    "checkpoint_format": _text(required=True),
    "preset": _text(required=True),
    "train_config": _text(required=True, json=True),
    "reference_uri": _text(required=True, sql=_FILE),
    "reference_sha256": _text(required=True),
    "photo_uri": _text(sql=_FILE),
    "preview_uri": _text(sql="located(coalesce(previews.uri, {own}), r.style_id)", events="previews"),
    "metrics": Column(
        "map(varchar, double)",
        compared=False,
        sql="map_concat(coalesce({own}, map()), coalesce(metric_maps.measured, map()))",
        events="metric_maps",
    ),
    "clip_embedding": Column("float[]", compared=False),
    "tags": Column(
        "varchar[]",
        sql="[tag for tag in coalesce({own}, []) if not list_contains(coalesce(tag_changes.removed, []), tag)]"
        " || [tag for tag in coalesce(tag_changes.added, []) if not list_contains(coalesce({own}, []), tag)]",
        events="tag_changes",
    ),
    "notes": _text(sql="concat_ws(chr(10), nullif({own}, ''), note_texts.added)", events="note_texts"),
    "license": _text(),
    "run_id": _text(),
    "train_seconds": Column("double"),
    "device": _text(),
    "software": _text(json=True),
    "clip_encoder": _text(),
    "probe_set": _text(sql="coalesce(previews.probe_set, {own})", events="previews"),
    "started_from": Column("varchar[]"),
    "aliases": Column("varchar[]", stored=False, sql="coalesce(alias_lists.names, [])", events="alias_lists"),
    "status_at": Column("timestamp", stored=False, sql="states.status_at", events="states", compared=False),
    "latest": Column(
        "boolean", stored=False, compared=False, events="states",
        sql="r.version = max(r.version) filter (states.state is null) over (partition by r.style_id)",
    ),
}  # fmt: skip
"""``catalog``: one immutable row for each trained version; and what :mod:`catalog.view` makes of it with the events."""

EVENT_COLUMNS = {
    "event_id": _text(required=True),
    "happened_at": Column("timestamp", required=True),
    "author": _text(),
    "kind": _text(required=True),
    "style_id": _text(required=True),
    "version": Column("bigint"),
    "name": _text(),
    "text": _text(),
    "subject": _text(required=True),
    "seq": Column("bigint", required=True),
}
"""``catalog_events``: what changed later. Of a subject's events the one with the highest ``seq`` is current."""

COMPARED: dict[str, Kind] = {name: column.kind for name, column in STYLE_COLUMNS.items() if column.compared}
"""What can be filtered and sorted by; every other name is a metric's."""


def delta_types(columns: dict[str, Column]) -> dict[str, str]:
    """Of the columns that a table stores, as Delta spells them."""
    types = {
        "varchar": "string",
        "bigint": "long",
        "varchar[]": "array<string>",
        "float[]": "array<float>",
        "map(varchar, double)": "map<string,double>",
    }
    return {name: types.get(column.type, column.type) for name, column in columns.items() if column.stored}


def arrow_schema(columns: dict[str, Column]) -> "pa.Schema":
    """Of the columns that a table stores."""
    import pyarrow as pa  # slow to load, and needed by writers alone

    types = {
        "varchar": pa.string(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "varchar[]": pa.list_(pa.string()),
        "float[]": pa.list_(pa.float32()),
        "map(varchar, double)": pa.map_(pa.string(), pa.float64()),
    }
    stored = {name: column for name, column in columns.items() if column.stored}
    return pa.schema([pa.field(name, types[c.type], nullable=not c.required) for name, c in stored.items()])
