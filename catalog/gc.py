"""Freeing the files of versions deleted long ago, and of trainings that never became versions or were never ended.

Order makes it safe to be killed: a version is first marked ``purging``, which only the deleted can become and which
cannot be restored; then its files go; then it is ``purged``. The next run goes on where one was stopped.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from catalog.changes import Changes
from catalog.errors import CatalogUsageError
from catalog.located import inside
from catalog.style_folder import RESULT, URIS, folder_of, owned, stored
from catalog.tables import Tables
from catalog.view import Question, VersionKey, View
from cluster.storage import FileInfo, Storage

ORPHAN_GUARD = timedelta(days=1)
"""Files younger than this may be about to be registered: never orphans."""


@dataclass
class GcReport:
    """What was freed, or would be. Bytes are those of checkpoints and of unfinished trainings before and after."""

    versions: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Folders that no version needs."""
    elsewhere: list[str] = field(default_factory=list)
    """Files of freed versions that stand outside of the storage and were left there."""
    files: int = 0
    freed_bytes: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect(tables: Tables, older_than: timedelta, *, dry_run: bool = False, now: datetime | None = None) -> GcReport:
    """Free what was deleted longer ago than ``older_than``, and orphans older than that and :data:`ORPHAN_GUARD`.

    Raises:
        CatalogUsageError: a negative age.
        StorageError: storage failed; what is not freed yet will be by the next run.
    """
    if older_than < timedelta(0):
        raise CatalogUsageError("--older-than cannot be negative")
    now = now or datetime.now(UTC)
    storage = tables.storage
    report = GcReport(bytes_before=_bytes(storage))
    doomed = _doomed(tables, now - older_than)
    if not dry_run:
        changes = Changes(tables)
        changes.purge(doomed, "deleted", "purging")  # those restored meanwhile are left
    rows = _rows(tables)
    freed = [row for row in rows if _pair(row) in doomed and (dry_run or row["status"] == "purging")]
    kept = owned(storage, [row for row in rows if row not in freed and row["status"] != "purged"])
    for row in freed:
        report.versions.append(f"{row['style_id']}@{row['version']}")
        report.elsewhere += [row[column] for column in URIS if row[column] and not inside(storage, row[column])]
        _free(storage, _files_of(storage, row, *kept), report, dry_run)
    if freed and not dry_run:
        changes.purge([_pair(row) for row in freed], "purging", "purged")
    for folder in orphans(tables, now - max(older_than, ORPHAN_GUARD)):
        if folder not in {folder_of(storage, row["checkpoint_uri"]) for row in freed}:
            # Looked at again right before it goes: a registration leaves a young mark in its folder.
            files = _folder(storage, folder)
            if _newest(files) < now - max(older_than, ORPHAN_GUARD):
                report.orphans.append(folder)
                _free(storage, files, report, dry_run)
    report.bytes_after = report.bytes_before - report.freed_bytes if dry_run else _bytes(storage)
    return report


def orphans(tables: Tables, before: datetime) -> list[str]:
    """Folders of trainings, finished or not, that no version needs and nothing was written to since ``before``."""
    folders = stored(tables.storage)
    # The rows are read after the files: what was registered in between has its row.
    kept, names = owned(tables.storage, [row for row in _rows(tables) if row["status"] != "purged"])
    return sorted(
        folder
        for folder, files in folders.items()
        if folder not in kept and _newest(files) < before and not {file.name for file in files} & names
    )


def _doomed(tables: Tables, before: datetime) -> list[VersionKey]:
    """Deleted before that time, or left in the middle by a run that was stopped."""
    limit = before.astimezone(UTC).replace(tzinfo=None)  # as the view tells times
    return [
        _pair(row)
        for row in _rows(tables)
        if row["status"] == "purging" or (row["status"] == "deleted" and row["status_at"] <= limit)
    ]


def _rows(tables: Tables) -> list[dict[str, Any]]:
    columns = ("style_id", "version", "status", "status_at", *URIS)
    return [*View(tables).ask(Question(columns, deleted=True))]


def _pair(row: dict[str, Any]) -> VersionKey:
    return row["style_id"], row["version"]


def _files_of(storage: Storage, row: dict[str, Any], kept_folders: set[str], kept_names: set[str]) -> list[FileInfo]:
    """Those of a version that no other needs, the record of wholeness first."""
    folder = folder_of(storage, row["checkpoint_uri"])
    found = _folder(storage, folder) if folder and folder not in kept_folders else []
    seen = {file.name for file in found}
    for name in (inside(storage, row[column]) for column in URIS):
        if name and name not in seen and name not in kept_names and (info := storage.stat(name)):
            found.append(FileInfo(name, info.size, info.version, info.modified))
    return [file for file in found if file.name not in kept_names]


def _folder(storage: Storage, folder: str) -> list[FileInfo]:
    if alone := storage.stat(folder):
        return [FileInfo(folder, alone.size, alone.version, alone.modified)]
    files = [FileInfo(f"{folder}/{f.name}", f.size, f.version, f.modified) for f in storage.walk(folder)]
    return sorted(files, key=lambda file: (not file.name.endswith(f"/{RESULT}"), file.name))


def _free(storage: Storage, files: Sequence[FileInfo], report: GcReport, dry_run: bool) -> None:
    for file in files:
        if not dry_run:
            storage.delete(file.name)
        report.files += 1
        report.freed_bytes += file.size


def _newest(files: Sequence[FileInfo]) -> datetime:
    return max((file.modified for file in files), default=datetime.max.replace(tzinfo=UTC))


def _bytes(storage: Storage) -> int:
    return sum(info.size for files in stored(storage).values() for info in files)
