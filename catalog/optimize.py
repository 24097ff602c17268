"""Keeping many small commits quick to read: compaction, log checkpoints, and removal of what nobody reads any more.

Safe beside readers and writers. A compaction writes new files beside the old and says so in one commit; readers that
opened the table before go on with the old files, which stay for the retention's time.
"""

from dataclasses import dataclass
from datetime import timedelta

from catalog.errors import CatalogUsageError
from catalog.tables import Log

LEAST_RETENTION = timedelta(hours=1)
"""A reader may go on so long with the files it opened, and a writer with those it has not committed yet."""


@dataclass(frozen=True)
class Optimized:
    """What became of one table. Files are those that a reader opens."""

    table: str
    files_before: int
    files_after: int
    removed: int
    """Files no longer of use, deleted from storage."""


def optimize(log: Log, retention: timedelta) -> Optimized | None:
    """None where nobody has written.

    Raises:
        CatalogUsageError: a retention below :data:`LEAST_RETENTION`.
        StorageError: storage failed; the table is as good as before.
    """
    if retention < LEAST_RETENTION:
        raise CatalogUsageError("--retain must be an hour at least: readers and writers at work need their files")
    with log.explained("optimize"):
        done = log.compact()
        opened = log.open()
        if done is None or opened is None:  # written to between the two: next time
            return None
        removed = opened.vacuum(
            retention_hours=max(1, int(retention.total_seconds() // 3600)),
            dry_run=False,
            enforce_retention_duration=False,  # of seven days; what is safe here is checked above
            full=True,  # also what killed writers have left
        )
        opened.create_checkpoint()
        opened.cleanup_metadata()
        after = len(opened.file_uris())
    return Optimized(log.name, after + done["numFilesRemoved"] - done["numFilesAdded"], after, len(removed))
