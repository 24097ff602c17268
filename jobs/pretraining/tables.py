"""Which images a job works on, and what a table says of them."""

import csv
import io

from cluster.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError

Row = dict[str, str]


def read_table(images: Storage, table: Storage, split: str | None) -> list[Row]:
    """Rows of the caption table whose image exists; ``file`` is relative to ``images``.

    Raises:
        ConfigError: no such table, no ``file`` column, no row left, or files missing.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_bytes().decode())))
    except (StorageError, UnicodeDecodeError) as error:
        raise ConfigError(Problem("--table", str(error))) from error
    if rows and "file" not in rows[0]:
        raise ConfigError(Problem("--table", f"{table} has no column 'file'", f"it has {', '.join(rows[0])}"))
    rows = [row for row in rows if split is None or row.get("split") == split]
    if not rows:
        raise ConfigError(Problem("--table", f"{table} has no rows" + (f" of split {split!r}" if split else "")))
    present = set(images.list_files())
    missing = [row["file"] for row in rows if row["file"] not in present]
    if missing:
        raise ConfigError(Problem("--images", f"{len(missing)} files of the table are not in {images}: {missing[0]} …"))
    return rows


def list_images(images: Storage) -> list[Row]:
    """Every file below ``images``, without captions."""
    rows = [{"file": name} for name in images.list_files()]
    if not rows:
        raise ConfigError(Problem("--images", f"{images} holds no files"))
    return rows
