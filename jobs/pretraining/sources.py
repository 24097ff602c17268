"""Where training images come from: files of a folder or prefix, or rows of Parquet files; cut into chunks of work."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import NotFound, Storage, StorageError
from cluster.storage.tables import open_parquet
from jobs.pretraining.tables import Row, list_images, read_table

Chunk = str
"""JSON: some files' rows, or a row group; what one task reads."""


@dataclass(frozen=True)
class Source:
    """An image set: its size, what identifies its content, and the chunks that :func:`read_chunk` reads."""

    storage: Storage
    count: int
    digest: str
    chunks: tuple[Chunk, ...]
    labelled: bool
    """Whether its rows have labels for captions."""


def open_source(images: str, table: str | None, split: str | None, column: str, chunk_size: int) -> Source:
    """Look at what is there; decodes nothing.

    Args:
        images: folder or prefix of images, or of Parquet files, or one Parquet file.
        column: of Parquet files, the one with the images' bytes (or a struct with a field ``bytes``).

    Raises:
        ConfigError: nothing usable is there.
    """
    storage = Storage.open(images)
    single = images.endswith(".parquet")
    infos = [] if single else list(storage.walk())
    if single or (infos and all(info.name.endswith(".parquet") for info in infos)):
        if table is not None:
            raise ConfigError(Problem("--table", "Parquet files bring their labels as columns"))
        return _parquet(storage, [""] if single else sorted(info.name for info in infos), split, column)
    rows = read_table(storage, Storage.open(table), split) if table else list_images(storage)
    versions = {info.name: (info.size, info.version) for info in infos}
    digest = hashlib.sha256(json.dumps([(row, versions.get(row["file"])) for row in rows]).encode()).hexdigest()
    chunks = [json.dumps({"rows": rows[i : i + chunk_size]}) for i in range(0, len(rows), chunk_size)]
    return Source(storage, len(rows), digest, tuple(chunks), labelled=table is not None)


def read_chunk(storage: Storage, chunk: Chunk) -> Iterator[tuple[Row, bytes | None, str]]:
    """(row, the image's bytes or None, what went wrong) of every image of a chunk, in order."""
    content = json.loads(chunk)
    if "rows" in content:
        for row in content["rows"]:
            try:
                yield row, storage.read_bytes(row["file"]), ""
            except NotFound:
                yield row, None, "no such file"
        return
    column, split = content["column"], content["split"]
    with _open(storage, content["file"]) as file:
        number = 0
        for batch in file.iter_batches(64, row_groups=[content["row_group"]]):
            for values in batch.to_pylist():
                picture = values.pop(column)
                data = picture.get("bytes") if isinstance(picture, dict) else picture
                row = {name: "" if value is None else str(value) for name, value in values.items()}
                row["file"] = row.get("file") or f"{content['file']}[{content['row_group']}:{number}]"
                number += 1
                if split is None or values.get("split", split) == split:
                    yield row, data, "" if data else "no bytes"


def _parquet(storage: Storage, names: list[str], split: str | None, column: str) -> Source:
    chunks, count, digest = [], 0, hashlib.sha256(f"{column} {split}".encode())
    problems: list[Problem] = []
    labelled = False
    for name in names:
        try:
            with _open(storage, name) as file:
                problems += _column_problems(storage.child_uri(name), file.schema_arrow, column)
                count += file.metadata.num_rows
                labelled = labelled or len(set(file.schema_arrow.names) - {column, "file", "split"}) > 0
                for group in range(file.metadata.num_row_groups):
                    chunks.append(json.dumps({"file": name, "row_group": group, "column": column, "split": split}))
            digest.update(f"\0{name}\0{storage.stat(name)}".encode())
        except StorageError as error:
            problems.append(Problem("--images", str(error)))
    if problems:
        raise ConfigError(problems[:20])
    return Source(storage, count, digest.hexdigest(), tuple(chunks), labelled)


def _column_problems(uri: str, schema: pa.Schema, column: str) -> list[Problem]:
    if column not in schema.names:
        return [Problem("--image-column", f"{uri} has no column {column!r}", f"it has {', '.join(schema.names)}")]
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return []
    return [Problem("--image-column", f"column {column!r} of {uri} holds {schema.field(column).type}, not bytes")]


def _open(storage: Storage, name: str) -> pq.ParquetFile:
    return open_parquet(storage.child(name) if name else storage)
