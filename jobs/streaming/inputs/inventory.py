"""S3 Inventory: a bucket's own daily or weekly list of its objects, read instead of asking for a thousand at a time."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv

from catalog.output_names import relative_key
from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError
from cluster.storage.tables import open_parquet
from jobs.streaming.inputs.item import Alone, Item, read_located, why_none

_VERSIONS = ("is_latest", "is_delete_marker")


def is_inventory(uri: str) -> bool:
    """Whether a file has the name that S3 gives to inventories."""
    return uri.rpartition("/")[2] == "manifest.json"


@dataclass(frozen=True)
class InventorySource(Alone):
    """Current pictures of an inventory, in its order. ``files``: its data, in CSV with ``columns``, or Parquet."""

    bucket: str
    kind: str
    columns: tuple[str, ...]
    files: tuple[Storage, ...]

    @classmethod
    def of(cls, manifest: Storage) -> "InventorySource":
        """From its ``manifest.json``.

        Raises:
            ConfigError: it is none, or of a format or without columns that are needed.
        """
        try:
            about = json.loads(manifest.read_bytes())
            kind, bucket = about["fileFormat"], about["sourceBucket"]
            place = Storage.open(f"s3://{about['destinationBucket'].removeprefix('arn:aws:s3:::')}")
            files = tuple(Storage(place.child_uri(file["key"])) for file in about["files"])
            columns = tuple(_plain(name) for name in about["fileSchema"].split(",")) if kind == "CSV" else ()
        except (ValueError, LookupError, TypeError, AttributeError, StorageError) as error:
            said = f"{manifest} is not a manifest.json of an S3 Inventory: {type(error).__name__}: {error}"
            raise ConfigError(Problem("--input", said)) from None
        if kind not in ("CSV", "Parquet"):
            raise ConfigError(Problem("--input", f"{manifest}: an inventory in {kind}", "set it to Parquet or CSV"))
        if kind == "CSV" and "key" not in columns:
            raise ConfigError(Problem("--input", f"{manifest}: an inventory without keys, only {', '.join(columns)}"))
        return cls(bucket, kind, columns, files)

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        passed_over = Counter() if passed_over is None else passed_over
        for file in self.files:
            for batch in self._csv(file) if self.kind == "CSV" else self._parquet(file):
                for row in batch.to_pylist():
                    if reason := _why_none(row):
                        passed_over[reason] += 1
                    else:
                        yield self._item(row["key"])

    def read(self, locator: str) -> bytes:
        return read_located(locator)

    def _item(self, key: str) -> Item:
        uri = f"s3://{self.bucket}/{key}"
        return Item(uri, relative_key(key), uri)

    def _csv(self, file: Storage) -> Iterator[pa.RecordBatch]:
        wanted = [name for name in ("key", *_VERSIONS) if name in self.columns]
        read = pyarrow.csv.ReadOptions(column_names=self.columns, use_threads=False)
        convert = pyarrow.csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()))
        try:
            stream: Any = file.filesystem.open_input_stream(file.path, compression="gzip")
            with stream, pyarrow.csv.open_csv(stream, read, convert_options=convert) as reader:
                for batch in reader:
                    keys = pa.array([unquote_plus(key, errors="surrogateescape") for key in batch["key"].to_pylist()])
                    yield batch.set_column(batch.schema.get_field_index("key"), "key", keys)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{file}: the inventory's data cannot be read: {error}") from None

    def _parquet(self, file: Storage) -> Iterator[pa.RecordBatch]:
        table = open_parquet(file)
        wanted = [name for name in ("key", *_VERSIONS) if name in table.schema_arrow.names]
        if "key" not in wanted:
            raise StorageError(f"{file}: the inventory has no column key")
        yield from table.iter_batches(8192, columns=wanted)


def _plain(name: str) -> str:
    """``IsLatest`` → ``is_latest``, as the Parquet files have it."""
    name = name.strip()
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _why_none(row: dict[str, Any]) -> str | None:
    if str(row.get("is_latest", "true")).lower() == "false" or str(row.get("is_delete_marker")).lower() == "true":
        return "former versions"
    return why_none(row["key"])
