"""Pictures of an output, read back wherever they stand: files of their own, or within shards (``stylize --pack``)."""

import re
import tarfile
from collections.abc import Mapping
from typing import Any

from cluster.storage import NotFound, Storage, StorageError
from cluster.storage.tables import open_parquet

_IN_TAR = re.compile(r"(.+\.tar)#(.+)")
_IN_PARQUET = re.compile(r"(.+\.parquet)#row=([1-9][0-9]*)")


def shard_of(uri: str) -> str:
    """The file that an ``output_uri`` lies in: its shard, or itself."""
    found = _IN_TAR.fullmatch(uri) or _IN_PARQUET.fullmatch(uri)
    return found[1] if found else uri


def read_picture(row: Mapping[str, Any]) -> bytes:
    """The picture of a manifest's ``done`` row; by one request where the row says its place in a tar file.

    Raises:
        StorageError: it cannot be read, or is not there.
    """
    uri, start, size = row["output_uri"], row.get("output_offset"), row.get("output_bytes")
    if (found := _IN_TAR.fullmatch(uri)) and start is not None and size is not None:
        return Storage.open(found[1]).read_range(start, start + size)
    return picture_at(uri)


def picture_at(uri: str) -> bytes:
    """The picture of an ``output_uri``.

    Raises:
        StorageError: it cannot be read, or is not there.
    """
    if found := _IN_TAR.fullmatch(uri):
        return _from_tar(Storage.open(found[1]), found[2])
    if found := _IN_PARQUET.fullmatch(uri):
        return _from_parquet(Storage.open(found[1]), int(found[2]) - 1)
    return Storage.open(uri).read_bytes()


def _from_tar(shard: Storage, member: str) -> bytes:
    try:
        with shard.open_file() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return tar.extractfile(member).read()  # type: ignore[union-attr]
    except (KeyError, AttributeError):
        raise NotFound(f"{shard}: no member {member}") from None
    except tarfile.TarError as error:
        raise StorageError(f"{shard}: cannot read: {error}") from None


def _from_parquet(shard: Storage, row: int) -> bytes:
    table = open_parquet(shard)
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row < rows:
            return bytes(table.read_row_group(group, columns=["image"]).column(0)[row].as_py()["bytes"])
        row -= rows
    raise NotFound(f"{shard}: no such row")
