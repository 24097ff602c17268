"""The manifest: a Delta table with one row per (input, variant, parameters) ever decided; a variant is a style, or a
style with a prompt.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

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
    ]
)

Pair = tuple[str, int, str]
"""What an input is decided for: style_id, version, params_hash. The hash covers the prompt."""

_SMALL_FILES = 64
"""Small files from which on :meth:`Manifest.compact` does something."""


class Manifest:
    """Reads and appends rows; a commit is visible as a whole or not at all."""

    def __init__(self, output: Storage, name: str = "manifest", schema: pa.Schema = SCHEMA) -> None:
        self.uri = output.delta_uri(name)
        self._schema = schema
        self._options = output.delta_options()

    def table(self) -> DeltaTable | None:
        """The table, or None before the first row."""
        if not DeltaTable.is_deltatable(self.uri, storage_options=self._options):
            return None
        return DeltaTable(self.uri, storage_options=self._options)

    def decided(self, uris: Sequence[str], hashes: Collection[str]) -> dict[str, dict[Pair, Status]]:
        """What is known of these inputs under these ``params_hash``: input URI → what for → status."""
        table = self.table() if uris else None
        found: dict[str, dict[Pair, Status]] = defaultdict(dict)
        if table is None:
            return found
        uri = pc.field("input_uri")
        wanted = (
            pc.field("params_hash").isin(pa.array(hashes))
            & (uri >= min(uris)) & (uri <= max(uris))  # lets file statistics skip most of a large table
            & uri.isin(pa.array(uris))
        )  # fmt: skip
        columns = ["input_uri", "style_id", "version", "params_hash", "status"]
        for batch in table.to_pyarrow_dataset().to_batches(columns=columns, filter=wanted):
            for input_uri, *pair, status in zip(*(column.to_pylist() for column in batch), strict=True):
                found[input_uri][tuple(pair)] = status
        return found

    def other_parameters(self, variants: Collection[tuple[Pair, str | None]]) -> list[tuple[Pair, str | None]]:
        """Those of the variants (what for, prompt) that have rows under other parameters: their pictures stand where
        ours would.
        """
        table = self.table()
        if table is None:
            return []
        dataset = table.to_pyarrow_dataset()
        columns = [name for name in ("style_id", "version", "params_hash", "text") if name in dataset.schema.names]
        ours = pa.array({params_hash for (_, _, params_hash), _ in variants})
        other = dataset.to_table(columns=columns, filter=~pc.field("params_hash").isin(ours))
        taken = {
            (row["style_id"], row["version"], row.get("text"))
            for row in other.group_by(columns).aggregate([]).to_pylist()
        }
        return [(pair, text) for pair, text in variants if (pair[0], pair[1], text) in taken]

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Commit rows of pairs that had none."""
        if rows:
            self._write(rows, mode="append")

    def replace(self, rows: Sequence[dict[str, Any]]) -> None:
        """Commit rows of pairs that may have one already, which then gives way; one commit a style."""
        if self.table() is None:
            return self.append(rows)
        groups: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[row["style_id"], row["version"], row["params_hash"]].append(row)
        for (style_id, version, params_hash), group in groups.items():
            uris = ", ".join(_quoted(row["input_uri"]) for row in group)
            # Not a merge or delete: those leave string_view columns in the files, which pyarrow cannot filter.
            self._overwrite(
                f"style_id = {_quoted(style_id)} AND version = {version} "
                f"AND params_hash = {_quoted(params_hash)} AND input_uri IN ({uris})",
                group,
            )

    @retry(
        retry=retry_if_exception_type(CommitFailedError),  # another run committed in between
        stop=stop_after_attempt(8),
        wait=wait_random_exponential(0.1, 5),
        reraise=True,
    )
    def _overwrite(self, predicate: str, rows: Sequence[dict[str, Any]]) -> None:
        self._write(rows, mode="overwrite", predicate=predicate)

    def _write(self, rows: Collection[dict[str, Any]], **how: Any) -> None:
        data = pa.Table.from_pylist(list(rows), schema=self._schema)
        # "merge": a table of before a column was added takes it on.
        write_deltalake(self.uri, data, schema_mode="merge", storage_options=self._options, **how)

    def compact(self) -> None:
        """Join many small files into few. Leaves the old ones to readers that are under way for a week."""
        table = self.table()
        if table is None or len(table.file_uris()) < _SMALL_FILES:
            return
        try:
            table.optimize.compact()
            table.vacuum(retention_hours=int(timedelta(days=7).total_seconds() // 3600), dry_run=False)
        except CommitFailedError:  # another run writes; it will compact
            return


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
