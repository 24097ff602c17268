"""Which images of a folder a job works on, and what a table says of them."""

import csv
import io

from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import Storage, StorageError, check_name

Row = dict[str, str]


def read_table(images: Storage, table: Storage, split: str | None) -> list[Row]:
    """Rows of a caption table; ``file`` is relative to ``images``. Single files may be missing, all of them may not.

    Raises:
        ConfigError: no such table, no ``file`` column, a malformed row (with its line), no row left, or no file found.
    """
    try:
        reader = csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8-sig")), strict=True)
        numbered = [(reader.line_num, row) for row in reader]
    except (StorageError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(Problem("--table", f"{table}: {error}")) from error
    columns = reader.fieldnames or []
    if "file" not in columns:
        raise ConfigError(Problem("--table", f"{table} has no column 'file'", f"it has {', '.join(columns) or 'none'}"))
    problems = [problem for line, row in numbered if (problem := _problem(f"{table}:{line}", row))]
    if problems:
        raise ConfigError(problems[:20])
    rows = [row for _, row in numbered if split is None or row.get("split") == split]
    if not rows:
        raise ConfigError(Problem("--table", f"{table} has no rows" + (f" of split {split!r}" if split else "")))
    if not any(images.exists(row["file"]) for row in rows[:20]) and not _any_present(images, rows):
        raise ConfigError(Problem("--images", f"no file of the table is in {images}, such as {rows[0]['file']}"))
    return rows


def list_images(images: Storage) -> list[Row]:
    """Every file below ``images``, without captions."""
    rows = [{"file": name} for name in images.list_files()]
    if not rows:
        raise ConfigError(Problem("--images", f"{images} holds no files"))
    return rows


def _problem(place: str, row: dict[str, str]) -> Problem | None:
    if None in row or None in row.values():
        return Problem(place, "the row has not as many cells as the first line")
    try:
        check_name(row["file"])
    except StorageError as error:
        return Problem(place, str(error))
    return None


def _any_present(images: Storage, rows: list[Row]) -> bool:
    return not {row["file"] for row in rows}.isdisjoint(images.list_files())
