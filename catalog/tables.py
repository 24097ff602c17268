"""The catalog's two Delta tables: opened, made, brought up to date, and appended to by compare-and-swap.

``catalog`` has a row for each trained version, ``catalog_events`` one for each later change to a version. Both only
grow. Readers open the events first: every event they see then speaks of a row that they see too.
"""

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from catalog.columns import EVENT_COLUMNS, STYLE_COLUMNS, arrow_schema, delta_types
from catalog.delta import EVENTS, ROWS, explained, open_table, unanswered
from catalog.errors import NewerCatalog
from cluster.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa
    from tenacity import RetryCallState, Retrying

FORMAT = 3
"""Raised when a change would mislead an older program; added columns mislead none. 1 had no events, 2 absolute URIs."""

NEEDED = "0.1.0"
"""The first version of this project that reads FORMAT."""

_FORMAT_KEY, _NEEDED_KEY = "style-catalog.format", "style-catalog.needed"
_PATIENCE_S = 300.0
_ATTEMPTS = 4
_CONFIGURATION = {
    # Opening a table reads the commits since the last checkpoint one by one.
    "delta.checkpointInterval": "20",
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
    # A transaction only matters to those who read the table before it.
    "delta.setTransactionRetentionDuration": "interval 7 days",
}


@dataclass
class Commit:
    """Rows to append, and the subjects that nobody else may have written to since the table was read."""

    rows: list[dict[str, Any]]
    swaps: dict[str, int] = field(default_factory=dict)


class Log:
    """One append-only table below a storage."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self._writing = threading.Lock()
        self._table: DeltaTable | None = None
        self._options: dict[str, str] = {}

    @property
    def uri(self) -> str:
        return self.storage.delta_uri(self.name)

    def open(self, operation: str = "open") -> DeltaTable | None:
        """The table at its newest version, which stays as it is while others write; None where nobody has written.

        Raises:
            NewerCatalog: a later program wrote it.
            DamagedTable: it cannot be opened.
        """
        columns = STYLE_COLUMNS if self.name == ROWS else EVENT_COLUMNS
        table = open_table(self.storage, self.name, operation, delta_types(columns))
        if table is not None:
            _check_format(table, self.uri)
        return table

    def append(self, decide: Callable[[DeltaTable], Commit], operation: str) -> Commit:
        """Append what ``decide`` makes of the table, deciding anew as often as others come first.

        A commit without rows writes nothing. Returns the commit that holds.

        Raises:
            StorageError: others kept coming first for five minutes, or storage failed; nothing was written.
        """
        # A table that another thread brought forward in between would hide what that thread has written.
        with self._writing, self.explained(operation):
            return _retrying()(self._append_once, decide, operation)

    def compact(self) -> dict[str, int] | None:
        """Rewrite small files as larger ones, in one commit; Delta's figures of it. None where nobody has written yet.

        Raises:
            StorageError: as :meth:`append`.
        """

        def once() -> dict[str, int] | None:
            table = self.open()
            return table.optimize.compact() if table else None

        with self.explained("compact"):
            return _retrying()(once)

    def _append_once(self, decide: Callable[[DeltaTable], Commit], operation: str) -> Commit:
        try:
            table = self._newest(operation)
            commit = decide(table)
            if commit.rows:
                _write(table, _schema(self.name), commit)
            return commit
        except CommitFailedError:
            raise
        except BaseException:
            self._table = None  # of unknown state
            raise

    def _newest(self, operation: str) -> DeltaTable:
        """For writing: made if nobody has, with all columns that this program knows."""
        options = self.storage.delta_options()
        if self._table is None or options != self._options:  # credentials were renewed
            self._table, self._options = self.open(operation) or self._create(), options
        else:
            self._table.update_incremental()
            _check_format(self._table, self.uri)
        _upgrade(self._table, _schema(self.name))
        return self._table

    def _create(self) -> DeltaTable:
        return DeltaTable.create(
            self.uri,
            schema=_schema(self.name),
            mode="ignore",
            name=self.name,
            configuration=_CONFIGURATION | {_FORMAT_KEY: str(FORMAT), _NEEDED_KEY: NEEDED},
            raise_if_key_not_exists=False,
            storage_options=self.storage.delta_options(),
        )

    def explained(self, operation: str) -> AbstractContextManager[None]:
        """Turns what Delta raises into a :class:`StorageError` that names the table and the operation."""
        return explained(self.storage, self.name, operation)


@dataclass(frozen=True)
class Tables:
    """Both tables below a storage."""

    storage: Storage
    rows: Log
    events: Log

    @classmethod
    def below(cls, storage: Storage) -> Self:
        return cls(storage, Log(storage, ROWS), Log(storage, EVENTS))


def _retrying() -> "Retrying":
    from tenacity import Retrying, retry_if_exception

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, CommitFailedError) or unanswered(error)),
        stop=_given_up,
        wait=_pause,
        reraise=True,
    )


def _pause(state: "RetryCallState") -> float:
    """Seconds before the next attempt, the fewer the more were in vain: a pause that grew would let others, who have
    just begun, come first for ever.
    """
    return random.uniform(0, 0.5 / state.attempt_number)


def _given_up(state: "RetryCallState") -> bool:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, CommitFailedError):
        return (state.seconds_since_start or 0) > _PATIENCE_S
    return state.attempt_number >= _ATTEMPTS


def _write(table: DeltaTable, schema: "pa.Schema", commit: Commit) -> None:
    import pyarrow as pa
    from deltalake import CommitProperties, Transaction, write_deltalake

    # A commit that carries a transaction of some name fails if another did since the table was read.
    swaps = [Transaction(subject, number) for subject, number in commit.swaps.items()]
    data = pa.Table.from_pylist(commit.rows, schema=schema)
    # A later version may have added columns: they are left empty.
    write_deltalake(
        table, data, mode="append", schema_mode="merge", commit_properties=CommitProperties(app_transactions=swaps)
    )


def _schema(name: str) -> "pa.Schema":
    return arrow_schema(STYLE_COLUMNS if name == ROWS else EVENT_COLUMNS)


def _check_format(table: DeltaTable, uri: str) -> None:
    settings = table.metadata().configuration
    found = settings.get(_FORMAT_KEY, "1")
    if not found.isdecimal() or int(found) > FORMAT:
        needed = settings.get(_NEEDED_KEY, "a later version")
        raise NewerCatalog(
            f"{uri}: the catalog has format {found}, this program reads up to {FORMAT}; it needs osasis-on-ray {needed}"
        )


def _upgrade(table: DeltaTable, schema: "pa.Schema") -> None:
    """Gives a table of an earlier version the columns and settings of this one; its rows stay as they are."""
    from deltalake import Schema

    have = {column.name for column in table.schema().fields}
    if missing := [column for column in Schema.from_arrow(schema).fields if column.name not in have]:
        table.alter.add_columns(missing)
    if int(table.metadata().configuration.get(_FORMAT_KEY, "1")) < FORMAT:
        table.alter.set_table_properties(
            _CONFIGURATION | {_FORMAT_KEY: str(FORMAT), _NEEDED_KEY: NEEDED}, raise_if_not_exists=False
        )
