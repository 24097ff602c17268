"""SQL over the catalog as it is now: one SELECT, without files, network or settings, bounded in memory and time.

Tables: ``styles`` (not deleted), ``all_styles`` (with ``status``), ``aliases``, ``notes`` and ``events``.
"""

import re
import threading
from dataclasses import dataclass
from typing import Any

import duckdb

from catalog.errors import CatalogUsageError
from catalog.view import View

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
    view: View, query: str, *, most_rows: int = MOST_ROWS, seconds: float = SECONDS, memory_mb: int = MEMORY_MB
) -> Answer:
    """The answer to one SELECT; embeddings are read only where the query says ``clip_embedding``.

    Raises:
        CatalogUsageError: not one SELECT, something wrong in it, something it may not do, or too much asked of it.
        StorageError: the catalog cannot be read.
    """
    _check_one_select(query)
    embedding = ["clip_embedding"] if re.search("clip_embedding", query, re.IGNORECASE) else []
    connection = view.materialize([*view.columns(), *embedding])
    for setting, value in {
        "memory_limit": f"{memory_mb}MB",
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


def _check_one_select(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise CatalogUsageError(f"cannot read the query: {str(error).strip()}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise CatalogUsageError("give one SELECT: the catalog is read here, and changed by its other commands")
