"""The manifest: a Delta table with one row per (input, variant, parameters) ever decided; a variant is a style, or a
style with a prompt.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from catalog.delta import explained, open_table, read_table, unanswered
from catalog.output_names import MANIFEST
from cluster.storage import Storage

Status = Literal["done", "rejected", "failed"]

SCHEMA = pa.schema(
    [
        ("input_uri", pa.string()),
        ("input_sha256", pa.string()),
        ("style_id", pa.string()),
        ("version", pa.int64()),
        ("params_hash", pa.string()),
        ("status", pa.string()),
        ("output_uri", pa.string()),
        ("output_sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("error_type", pa.string()),
        ("error", pa.string()),
        ("seconds", pa.float64()),
        ("run_id", pa.string()),
        ("seed", pa.int64()),
        ("transform", pa.string()),
        ("key", pa.string()),
        ("text", pa.string()),  # the prompt, null without one; tables of before it have no such column
        ("notes", pa.string()),  # what was mended or left out in decoding, mostly null; as above
        ("structure", pa.float64()),  # scores, null where none were asked for; as above
        ("style", pa.float64()),
        ("output_offset", pa.int64()),  # of a picture within a tar file; null otherwise, as above
        ("output_bytes", pa.int64()),  # of a picture within a shard; null otherwise, as above
        ("flags", pa.string()),  # conditions that hold of the row, null where none does; as above
    ]
)

FLAGGED = ("structure", "style", "seconds", "width", "height")
"""Columns that rows can be marked by."""

VariantKey = tuple[str, int, str]
"""What an input is decided for: style_id, version, params_hash. The hash covers the prompt."""

_PAIR = ["input_uri", "style_id", "version", "params_hash"]
"""Columns that say which (input, variant) a row is of."""

_TABLE_ROWS = 1 << 17
"""Of :meth:`Manifest.tables` at once: few, since URIs take more memory than what is kept of them."""

_WRITER = WriterProperties(max_row_group_size=_TABLE_ROWS)
"""Readers hold whole row groups: a million rows each, as by default, take gigabytes."""

_SMALL_FILES = 64
"""Small files from which on :meth:`Manifest.compact` does something."""


class Manifest:
    """Reads and appends rows; a commit is visible as a whole or not at all.

    All methods raise StorageError where storage fails, DamagedTable where files of the table are missing or damaged.
    """

    def __init__(self, output: Storage, name: str = MANIFEST, schema: pa.Schema = SCHEMA) -> None:
        self.uri = output.delta_uri(name)
        self._storage, self.name = output, name
        self._schema = schema
        self._writer, self._appended = uuid.uuid4().hex, 0

    def table(self) -> DeltaTable | None:
        """The table, or None before the first row."""
        kinds = {"int64": "long"}
        columns = {field.name: kinds.get(str(field.type), str(field.type)) for field in self._schema}
        return open_table(self._storage, self.name, columns=columns)

    def batches(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> Iterator[pa.RecordBatch]:
        """Rows that pass an SQL predicate, by batches; of ``columns``, those that the table has yet."""
        table = self.table()
        if table is None:
            return
        have = [column.name for column in table.schema().fields]
        chosen = [name for name in have if columns is None or name in columns]
        with explained(self._storage, self.name, "read"):
            yield from read_table(table, chosen, predicate)

    def tables(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> Iterator[pa.Table]:
        """:meth:`batches`, many joined to one: what is done with each costs less for each row."""
        held: list[pa.RecordBatch] = []
        count = 0
        for batch in self.batches(columns, predicate):
            held.append(batch)
            count += len(batch)
            if count >= _TABLE_ROWS:
                yield pa.Table.from_batches(held)
                held, count = [], 0
        if held:
            yield pa.Table.from_batches(held)

    def rows(self, columns: Sequence[str] | None = None, *, status: Status | None = None) -> list[dict[str, Any]]:
        """Rows as dicts, with None for columns that came after the table was written."""
        names = list(columns or self._schema.names)
        read = [*names, "status"]
        found = [row for batch in self.batches(read) for row in batch.to_pylist()]
        return [{name: row.get(name) for name in names} for row in found if status in (None, row["status"])]

    def picture(self, output_uri: str) -> dict[str, Any] | None:
        """The row whose picture this is; None if there is none."""
        batches = self.batches(predicate=f"output_uri = {_quoted(output_uri)}")
        rows = [row for batch in batches for row in batch.to_pylist()]
        return rows[-1] if rows else None

    def decided(self, uris: Sequence[str], hashes: Collection[str]) -> dict[str, dict[VariantKey, Status]]:
        """What is known of these inputs under these ``params_hash``: input URI → what for → status."""
        found: dict[str, dict[VariantKey, Status]] = defaultdict(dict)
        if not uris:
            return found
        # The range lets file statistics skip most of a large table.
        within = f"input_uri >= {_quoted(min(uris))} AND input_uri <= {_quoted(max(uris))}"
        predicate = f"{within} AND params_hash IN ({', '.join(map(_quoted, hashes))})"
        columns = [*_PAIR, "status"]
        wanted = pa.array(uris)
        for batch in self.batches(columns, predicate):
            chosen = batch.filter(pc.is_in(batch["input_uri"], wanted)).select(columns)
            for input_uri, *key, status in zip(*(column.to_pylist() for column in chosen), strict=True):
                found[input_uri][tuple(key)] = status
        return found

    def other_parameters(
        self, variants: Collection[tuple[VariantKey, str | None]]
    ) -> list[tuple[VariantKey, str | None]]:
        """Those of the variants (what for, prompt) that have rows under other parameters: their pictures stand where
        ours would.
        """
        ours = {params_hash for (_, _, params_hash), _ in variants}
        predicate = f"params_hash NOT IN ({', '.join(map(_quoted, ours))})" if ours else None
        taken = set()
        for batch in self.batches(["style_id", "version", "text"], predicate):
            distinct = pa.Table.from_batches([batch]).group_by(batch.schema.names).aggregate([])
            taken |= {(row["style_id"], row["version"], row.get("text")) for row in distinct.to_pylist()}
        return [(key, text) for key, text in variants if (key[0], key[1], text) in taken]

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Commit rows of pairs that had none, or one that failed (see :meth:`settle`)."""
        if rows:
            self.append_table(pa.Table.from_pylist(list(rows), schema=self._schema))

    def append_table(self, rows: pa.Table) -> None:
        """:meth:`append` of columns as the schema has them; once, also where the answer of a commit is lost."""
        self._appended += 1
        once = CommitProperties(app_transactions=[Transaction(self._writer, self._appended)])
        with explained(self._storage, self.name, "write"):
            for attempt in _retrying():
                with attempt:
                    if attempt.retry_state.attempt_number > 1 and self._has_appended():
                        return
                    self._write(rows, mode="append", commit_properties=once)

    def settle(self, hashes: Collection[str]) -> None:
        """Remove failed rows whose pair was taken up again and has a newer row; one commit.

        A pair is taken up again only where it failed, so that of two rows the one that did not fail is the newer; of
        two failed ones, that of the later run.
        """
        ours = f"status = 'failed' AND params_hash IN ({', '.join(map(_quoted, sorted(hashes)))})"
        parts = list(self.tables(predicate=ours))
        if not parts:
            return
        failed = pa.concat_tables(parts)
        uris = failed["input_uri"].unique()
        least, most = pc.min_max(uris).as_py().values()
        within = f"input_uri >= {_quoted(least)} AND input_uri <= {_quoted(most)} AND status <> 'failed'"
        newer = [t.filter(pc.is_in(t["input_uri"], uris)) for t in self.tables([*_PAIR, "status"], within)]
        runs = pa.table({name: failed[name] for name in [*_PAIR, "run_id"]} | {"row": np.arange(len(failed))})
        last = runs.sort_by("run_id").group_by(_PAIR, use_threads=False).aggregate([("row", "last")])
        if newer:
            last = last.join(pa.concat_tables(newer).select(_PAIR), _PAIR, join_type="left anti")
        if len(last) < len(failed):
            # Not a merge or delete: those leave string_view columns in the files, which pyarrow cannot filter.
            with explained(self._storage, self.name, "write"):
                rows = failed.take(last["row_last"].sort())
                _retrying()(self._write, rows, mode="overwrite", predicate=ours)

    def _has_appended(self) -> bool:
        """Whether the latest commit of this object's is in the table."""
        table = self.table()
        return table is not None and table.transaction_version(self._writer) == self._appended

    def _write(self, data: pa.Table, **how: Any) -> None:
        # "merge": a table of before a column was added takes it on.
        options = self._storage.delta_options()
        write_deltalake(self.uri, data, schema_mode="merge", storage_options=options, writer_properties=_WRITER, **how)

    def compact(self) -> None:
        """Join many small files into few. Leaves the old ones to readers that are under way for a week."""
        table = self.table()
        if table is None or len(table.file_uris()) < _SMALL_FILES:
            return
        with explained(self._storage, self.name, "compact"), suppress(CommitFailedError):  # another run will compact
            table.optimize.compact(writer_properties=_WRITER)
            table.vacuum(retention_hours=int(timedelta(days=7).total_seconds() // 3600), dry_run=False)


def _retrying() -> Retrying:
    return Retrying(
        # Another run committed in between, or it is not known whether this one has.
        retry=retry_if_exception(lambda error: isinstance(error, CommitFailedError) or unanswered(error)),
        stop=stop_after_attempt(8),
        wait=wait_random_exponential(0.1, 5),
        reraise=True,
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
