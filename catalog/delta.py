"""Delta tables, opened in one way: what is damaged is told in a sentence, and only columns of plain types are read.

The tables' files are read by Delta's own reader, never by pyarrow's: pyarrow would make the extension types that a
Parquet file names, and some of those run code (docs/security.md).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from catalog.errors import DamagedTable
from cluster.storage import Storage, StorageError, StorageUnavailable

ROWS = "catalog"
EVENTS = "catalog_events"
"""Where the tables of the catalog stand below the storage."""

_LISTINGS = 3
"""How often a table's log is listed before the failure is told."""

if TYPE_CHECKING:
    import pyarrow as pa


def open_table(
    storage: Storage, name: str, operation: str = "open", columns: Mapping[str, str] | None = None
) -> DeltaTable | None:
    """The table ``name`` below a storage at its newest version; None where nobody has written.

    Args:
        operation: what it is opened for, as errors tell.
        columns: its declared columns and their Delta types. The first must be there, others may come later; each that
            is there must have its type.

    Raises:
        StorageError: it cannot be reached.
        DamagedTable: it is there and cannot be opened, or has other columns.
    """
    with explained(storage, name, operation):
        try:
            table = _opened(storage, name)
        except TableNotFoundError:
            # Asked of storage too, which tells a missing table from a missing bucket.
            log = storage.walk(f"{name}/_delta_log", recursive=False)
            if not any(info.name.endswith(".json") for info in log):
                return None
            table = _opened(storage, name)  # somebody made it just now
    _check_columns(table, storage.child_uri(name), columns or {})
    return table


def _opened(storage: Storage, name: str) -> DeltaTable:
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

    # Delta repeats a request that fails, but not a listing whose answer breaks off: that is for whoever reads.
    retrying = Retrying(
        retry=retry_if_exception(unanswered), stop=stop_after_attempt(_LISTINGS), wait=wait_random(0, 0.5), reraise=True
    )
    return retrying(DeltaTable, storage.delta_uri(name), storage_options=storage.delta_options())


def read_table(table: DeltaTable, columns: Sequence[str], predicate: str | None = None) -> "Iterator[pa.RecordBatch]":
    """Batches of these columns, of the rows that pass an SQL predicate; strings as ``pa.string()``.

    To be taken inside :func:`explained`.
    """
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_stream(table.scan(columns=list(columns), predicate=predicate))
    schema = pa.schema([(f.name, pa.string() if f.type == pa.string_view() else f.type) for f in reader.schema])
    memory = pa.default_cpu_memory_manager()
    for batch in reader:
        # Copied: a column as it came keeps alive all that was read for its batch, however few rows passed.
        yield batch.cast(schema).copy_to(memory)


@contextmanager
def explained(storage: Storage, name: str, operation: str) -> Iterator[None]:
    """Turns what Delta and its readers raise into a :class:`StorageError` that names table, operation and cause."""
    where = storage.child_uri(name)
    try:
        yield
    except CommitFailedError as error:
        raise StorageUnavailable(f"{where}: cannot {operation}: too many others write; try again") from error
    except Exception as error:
        if not isinstance(error, (DeltaError, OSError)) and not type(error).__module__.startswith("pyarrow"):
            raise
        if not (storage.is_local and _is_damage(error)) and (known := storage.explain(error)):
            raise known[0](f"{where}: cannot {operation}: {known[1]}") from error
        if not storage.is_local:
            # Storage explains dead servers, proxies and certificates better than Delta does.
            try:
                next(storage.walk(f"{name}/_delta_log", recursive=False), None)
            except StorageError as better:
                raise type(better)(f"{where}: cannot {operation}: {better}") from error
        kind, advice = (DamagedTable, _advice(name)) if _is_damage(error) else (StorageError, "")
        raise kind(f"{where}: cannot {operation}: {_first_words(error)}{advice}") from error


def unanswered(error: BaseException) -> bool:
    """A write whose answer did not come: Delta does not repeat it, for it may have been done; the table tells."""
    raised = error.__cause__ if isinstance(error, StorageError) else error
    return isinstance(raised, OSError) and "HTTP error" in str(raised) and " retries" not in str(raised)


def _advice(name: str) -> str:
    if name in (ROWS, EVENTS):
        return "; a file of it is missing or damaged: style-catalog verify names the file and how to mend it"
    return "; a file of it is missing or damaged: restore it from a backup, or move the table aside to do all again"


_DAMAGE = ("Json error", "No table metadata", "found gap", "Parquet", "No such file", "Not a directory")


def _is_damage(error: Exception) -> bool:
    return any(sign in str(error) for sign in _DAMAGE)


def _first_words(error: Exception) -> str:
    """Of an error's many lines, without the frames of the native library's stack and its colours."""
    text = re.sub(r"\x1b\[\d*m|↳", "", str(error))
    lines = [line.strip() for line in text.splitlines() if not re.match(r"\s*\d+: ", line)]
    return f"{type(error).__name__}: {' '.join(filter(None, lines))[:300]}"


def _check_columns(table: DeltaTable, uri: str, declared: Mapping[str, str]) -> None:
    """Refuses a column that would be read as an extension type, which pyarrow makes by running its registered code, and
    a table that is not the one declared.
    """
    schema = table.schema().to_json()
    if found := re.search(r'"ARROW:extension:name":\s*"([^"]*)"', schema):
        raise DamagedTable(f"{uri}: a column has the extension type {found[1]!r}, which is not read: it could run code")
    types = {field["name"]: _spelled(field["type"]) for field in json.loads(schema)["fields"]}
    for column in [*declared][:1]:
        if column not in types:
            raise DamagedTable(f"{uri}: is a different table: it has no column {column}; choose another place")
    for column, kind in declared.items():
        if types.get(column, kind) != kind:
            raise DamagedTable(f"{uri}: its column {column} holds {types[column]}, not {kind}; choose another place")


def _spelled(kind: Any) -> str:
    """A type of Delta's JSON in one line: ``long``, ``array<string>``, ``map<string,double>``."""
    if not isinstance(kind, dict):
        return str(kind)
    parts = [_spelled(kind[name]) for name in ("elementType", "keyType", "valueType") if name in kind]
    return f"{kind['type']}<{','.join(parts)}>" if parts else str(kind["type"])
