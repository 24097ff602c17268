"""The catalog at one moment: the table of versions with all events folded in, asked by DuckDB.

Only the columns that a question names are read, and what the table can tell by itself is pushed down to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from deltalake import DeltaTable

from catalog.columns import COMPARED, EVENT_COLUMNS, STYLE_COLUMNS, Column
from catalog.errors import CatalogUsageError
from catalog.filters import Condition
from catalog.located import located_sql
from catalog.tables import Log, Tables

# Of a subject's events the one with the highest number is current.
_FOLD = """
create temp view current_events as
    select * from events qualify row_number() over (partition by subject order by seq desc, event_id) = 1;
create temp view states as
    select style_id, version, happened_at as status_at,
        case kind when 'deleted' then 'deleted' when 'purging' then 'purging' when 'purged' then 'purged' end as state
    from current_events where kind in ('deleted', 'purging', 'purged');
create temp view aliases as
    select style_id, name as alias, version, happened_at, author from current_events where kind = 'alias-set';
create temp view alias_lists as
    select style_id, version, list(alias order by alias) as names from aliases group by style_id, version;
create temp view tag_changes as
    select style_id, version, list(name order by happened_at, name) filter (kind = 'tag-added') as added,
        list(name) filter (kind = 'tag-removed') as removed
    from current_events where kind in ('tag-added', 'tag-removed') group by style_id, version;
create temp view notes as
    select style_id, version, name as note_id, text, happened_at, author from current_events where kind = 'note-added';
create temp view previews as
    select style_id, version, name as probe_set, text as uri from current_events where kind = 'preview-set';
create temp view metric_maps as
    select style_id, version, map_from_entries(list((name, text::double) order by name)) as measured
    from current_events where kind = 'metric-set' group by style_id, version;
create temp view note_texts as
    select style_id, version, string_agg(text, chr(10) order by happened_at, note_id) as added from notes
    group by style_id, version;
"""

VersionKey = tuple[str, int]
"""(style id, version)."""


@dataclass(frozen=True)
class Question:
    """What is asked of the styles. ``columns`` in order; a sort begins with ``-`` for the largest first."""

    columns: Sequence[str]
    where: Sequence[Condition] = ()
    latest: bool = False
    deleted: bool = False
    """Hidden versions too."""
    sort: Sequence[str] = ("style_id", "version")
    limit: int | None = None
    offset: int = 0
    style_ids: Sequence[str] | None = None
    """Of these styles alone."""
    near: Sequence[float] | None = None
    """An embedding: the nearest first, with their ``similarity`` as another column; ``sort`` is not used."""


class View:
    """Both tables at one version each. Not for several threads at once."""

    def __init__(self, tables: Tables, events: DeltaTable | None = None) -> None:
        """``events``: that table at the version that is wanted; the newest by default."""
        self._log = tables.rows
        events = events or tables.events.open("read the catalog")
        self._rows = tables.rows.open("read the catalog")
        self._connection = connect()
        self._connection.execute(located_sql(tables.storage))
        self._read_events(tables.events, events)

    def columns(self) -> list[str]:
        """All that can be asked for, of whichever version the table is; without the embedding, which is large."""
        known = dict.fromkeys([*self._stored(), *COMPARED, "metrics"])
        return [name for name in known if name != "clip_embedding"]

    def ask(self, question: Question) -> Iterator[dict[str, Any]]:
        """Rows as dicts, read as they are taken; ``created_at`` is naive UTC.

        Raises:
            CatalogUsageError: a column or sort that does not exist.
            StorageError: the table cannot be read.
        """
        if self._rows is None:
            return
        text, parameters, needed = self._statement(question)
        with self._log.explained("read the catalog"), _as_os_error():
            self._register("rows", needed, _pushed(question))
            found = self._connection.execute(text, parameters)
            names = [column[0] for column in found.description]
            while batch := found.fetchmany(2000):
                for row in batch:
                    yield dict(zip(names, row, strict=True))

    def versions(self, pairs: Sequence[tuple[str, int]], columns: Sequence[str]) -> list[dict[str, Any]]:
        """These versions, deleted ones too, with ``style_id``, ``version`` and ``columns``; by style and version."""
        names = [*dict.fromkeys(("style_id", "version", *columns))]
        asked = Question(names, deleted=True, style_ids=sorted({style_id for style_id, _ in pairs}))
        chosen = {*pairs}
        return [row for row in self.ask(asked) if (row["style_id"], row["version"]) in chosen]

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a query over ``events``, ``current_events``, ``states``, ``aliases`` and ``notes``, all in memory."""
        found = self._connection.execute(sql, parameters or {})
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def materialize(self, names: Sequence[str]) -> duckdb.DuckDBPyConnection:
        """The connection, with ``all_styles`` and ``styles`` (those not deleted) as tables of these columns."""
        body, _ = self._styles([*names, "status", "status_at"])
        if self._rows is None:
            empty = ", ".join(f"null::{_type(name)} as {name}" for name in names)
            self._connection.execute(f"create temp table all_styles as select {empty}, null as status_at limit 0")
        else:
            with self._log.explained("read the catalog"), _as_os_error():
                self._register("rows", [name for name in self._stored() if name in names], None)
                self._connection.execute(f"create temp table all_styles as {body}")
                self._connection.unregister("rows")
        self._connection.execute("create temp view styles as select * from all_styles where status = 'ready'")
        return self._connection

    def _stored(self) -> list[str]:
        return [column.name for column in self._rows.schema().fields] if self._rows else []

    def _read_events(self, log: Log, table: DeltaTable | None) -> None:
        columns = ", ".join(f"{name} {column.type}" for name, column in EVENT_COLUMNS.items())
        self._connection.execute(f"create temp table events ({columns})")
        if table is not None:
            names = ", ".join(EVENT_COLUMNS)
            chosen = names.replace("happened_at", "make_timestamp(epoch_us(happened_at))")
            with log.explained("read the catalog"), _as_os_error():
                self._connection.register("stored_events", table.scan(columns=list(EVENT_COLUMNS)))
                self._connection.execute(f"insert into events ({names}) select {chosen} from stored_events")
                self._connection.unregister("stored_events")
        self._connection.execute(_FOLD)

    def _register(self, name: str, columns: Sequence[str], predicate: str | None) -> None:
        assert self._rows is not None
        self._connection.register(name, self._rows.scan(columns=list(columns), predicate=predicate))

    def _statement(self, question: Question) -> tuple[str, dict[str, Any], list[str]]:
        """(SQL, parameters, columns read from the table)."""
        where: list[str] = [] if question.deleted else ["status = 'ready'"]
        if question.latest:
            where.append("latest")
        parameters: dict[str, Any] = {}
        for number, condition in enumerate(question.where):
            text, given = condition.sql(number)
            where.append(text)
            parameters |= given
        if question.style_ids is not None:
            where.append("list_contains($style_ids, style_id)")
            parameters["style_ids"] = list(question.style_ids)
        order: list[str] = []
        chosen = [*question.columns]
        used = {*chosen}
        if question.near is not None:
            parameters["near"] = list(question.near)
            where.append("len(clip_embedding) = len($near)")
            chosen.append("list_cosine_similarity(clip_embedding::float[], $near::float[]) as similarity")
            used.add("clip_embedding")
            order.append("similarity desc, style_id, version")
        for name in question.sort if question.near is None else ():
            bare = name.removeprefix("-")
            known = bare in COMPARED or bare in ("metrics", "latest")
            parameters |= {} if known else {f"sort_{len(order)}": bare}
            expression = bare if known else f"metrics[$sort_{len(order)}]"
            order.append(f"{expression} {'desc' if name.startswith('-') else 'asc'} nulls last")
        used |= {c.name if c.name in COMPARED else "metrics" for c in question.where}
        used |= {bare if (bare := name.removeprefix("-")) in COMPARED else "metrics" for name in question.sort}
        body, needed = self._styles([*sorted(used | {"status"}), *(["latest"] if question.latest else [])])
        text = f"with styles as ({body}) select {', '.join(chosen)} from styles"
        text += f" where {' and '.join(where)}" if where else ""
        text += f" order by {', '.join(order)}" if order else ""
        text += f" limit {int(question.limit)}" if question.limit is not None else ""
        text += f" offset {int(question.offset)}" if question.offset else ""
        return text, parameters, needed

    def _styles(self, names: Sequence[str]) -> tuple[str, list[str]]:
        """(select of these columns, columns read from the table)."""
        stored = self._stored()
        wanted = [*dict.fromkeys(names)]
        if unknown := [name for name in wanted if name not in (*stored, *STYLE_COLUMNS)]:
            raise CatalogUsageError(f"no column {unknown[0]!r}; there are {', '.join(self.columns())}")
        parts, joined = [], {"states"}
        for name in wanted:
            column = STYLE_COLUMNS.get(name, _LATER)
            # Null for a column that came after this table was written.
            own = f"r.{name}" if name in stored else f"null::{_type(name)}"
            parts.append(f"{column.sql.replace('{own}', own)} as {name}")
            joined |= {column.events} if column.events else set()
        joins = "".join(f" left join {name} on {name}.style_id = r.style_id and {name}.version = r.version"
                        for name in sorted(joined))  # fmt: skip
        needed = {"style_id", "version", "status", *(name for name in wanted if name in stored)}
        return f"select {', '.join(parts)} from rows r{joins}", [name for name in stored if name in needed]


_LATER = Column("varchar")
"""A column that a later version of this program added to the table."""


def _type(name: str) -> str:
    return STYLE_COLUMNS.get(name, _LATER).type


def connect() -> duckdb.DuckDBPyConnection:
    """An empty database in memory that loads no extension and writes nothing."""
    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "temp_directory": "",
        },
    )


def _pushed(question: Question) -> str | None:
    """Conditions for the table's reader; of styles alone where the newest version is to be found among all."""
    conditions = [c for c in question.where if not question.latest or c.name == "style_id"]
    parts = [text for c in conditions if (text := c.pushed())]
    if question.style_ids is not None and 0 < len(question.style_ids) <= 200:
        parts.append("(" + " or ".join(f"{Condition('style_id', '=', i).pushed()}" for i in question.style_ids) + ")")
    return " and ".join(parts) or None


class _as_os_error:  # noqa: N801
    """DuckDB reads the table's stream itself and wraps what storage raises there."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, duckdb.Error):
            raise OSError(str(error)) from error
