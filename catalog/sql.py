"""SQL over the catalog as it is now: one SELECT, without files, network or settings, bounded in memory and time.

Tables: ``styles`` (not deleted), ``all_styles`` (with ``status``), ``aliases``, ``notes`` and ``events``; of an
output's manifest ``pictures`` (the row that counts of each pair) and ``all_pictures``.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from catalog.errors import CatalogUsageError
from catalog.manifest import SCHEMA, Manifest
from catalog.view import View
from cluster.storage import Storage

_CURRENT = """
create temp view pictures as
    select * from all_pictures where status <> 'failed'
    union all
    select * from (
        select * from all_pictures where status = 'failed'
        qualify row_number() over (partition by input_uri, style_id, version, params_hash order by run_id desc) = 1
    ) anti join (from all_pictures where status <> 'failed') using (input_uri, style_id, version, params_hash)
"""
"""A pair is taken up again only where it failed: a row that did not fail is newer; of failed ones, the last run's."""

MEMORY_MB = 1024
SECONDS = 60.0
MOST_ROWS = 100_000


@dataclass(frozen=True)
class Answer:
    """Rows of a query; ``more`` if there were more than were asked for."""

    columns: list[str]
    rows: list[dict[str, Any]]
    more: bool


def ask_sql(
    view: View,
    query: str,
    *,
    most_rows: int = MOST_ROWS,
    seconds: float = SECONDS,
    memory_mb: int = MEMORY_MB,
    output: Storage | None = None,
) -> Answer:
    """The answer to one SELECT; embeddings are read only where the query says ``clip_embedding``, and of the manifest
    of ``output`` the columns that the query names.

    Raises:
        CatalogUsageError: not one SELECT, something wrong in it, something it may not do, or too much asked of it.
        StorageError: the catalog cannot be read.
    """
    _check_one_select(query)
    embedding = ["clip_embedding"] if re.search("clip_embedding", query, re.IGNORECASE) else []
    connection = view.materialize([*view.columns(), *embedding])
    connection.execute("set memory_limit = $value", {"value": f"{memory_mb}MB"})
    if output is not None:
        _add_pictures(connection, Manifest(output), query)
    for setting, value in {
        "enable_external_access": False,
        "allow_community_extensions": False,
        "lock_configuration": True,
    }.items():
        connection.execute(f"set {setting} = $value", {"value": value})
    # A cell too large for memory is refused by DuckDB; a query that runs on is stopped.
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        found = connection.execute(query)
        names = [column[0] for column in found.description]
        rows = found.fetchmany(most_rows + 1)
    except duckdb.InterruptException:
        raise CatalogUsageError(f"the query ran for more than {seconds:g} seconds and was stopped") from None
    except duckdb.Error as error:
        raise CatalogUsageError(f"the query failed: {str(error).strip()}") from None
    finally:
        timer.cancel()
    unique = [name if name not in names[:i] else f"{name}_{i}" for i, name in enumerate(names)]
    return Answer(unique, [dict(zip(unique, row, strict=True)) for row in rows[:most_rows]], len(rows) > most_rows)


def _add_pictures(connection: duckdb.DuckDBPyConnection, manifest: Manifest, query: str) -> None:
    import pyarrow as pa

    said = set(re.findall(r"\w+", query.lower()))
    everything = re.search(r"(?<!\()\s*\*", query) is not None
    needed = {"input_uri", "style_id", "version", "params_hash", "status", "run_id"}
    schema = pa.schema([field for field in SCHEMA if everything or field.name in said | needed])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in manifest.batches(schema.names):
            columns = [
                batch[field.name].cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(len(batch), field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    connection.register("manifest_rows", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        connection.execute("create temp table all_pictures as from manifest_rows")
    except duckdb.OutOfMemoryException:
        raise CatalogUsageError("the manifest does not fit into memory: name fewer columns") from None
    connection.unregister("manifest_rows")
    connection.execute(_CURRENT)


def _check_one_select(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise CatalogUsageError(f"cannot read the query: {str(error).strip()}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise CatalogUsageError("give one SELECT: the catalog is read here, and changed by its other commands")
