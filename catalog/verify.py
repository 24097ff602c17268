"""Comparing the catalog with what is stored: checkpoints by sha256, pictures by their presence, orphans by rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from catalog.delta import EVENTS, ROWS
from catalog.gc import ORPHAN_GUARD, orphans
from catalog.style_folder import STATES, URIS
from catalog.table_check import table_damage
from catalog.tables import Tables
from catalog.view import Question, VersionKey, View
from cluster.storage import NotFound, Storage, StorageError


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the catalog says. ``style`` is ``id@version``; empty for orphans and files of tables."""

    kind: Literal["missing", "damaged", "unreadable", "orphan", "table-missing", "table-damaged"]
    style: str
    uri: str
    message: str


def verify(
    tables: Tables, pairs: list[VersionKey] | None = None, *, quick: bool = False, now: datetime | None = None
) -> Iterator[Finding | VersionKey]:
    """Yields each version when it is looked at, and findings as they turn up; changes nothing.

    The tables come first; where a file of them is damaged, nothing else is looked at.

    Deleted versions are looked at too, for they can be restored; those that gc has freed are not.

    Args:
        pairs: these versions alone, and no orphans.
        quick: sizes instead of sha256.

    Raises:
        StorageError: the catalog itself cannot be read.
    """
    damage = [found for name, remedy in _REMEDIES.items() for found in table_damage(tables.storage, name, remedy)]
    if damage:
        yield from (Finding(found.kind, "", found.uri, found.message) for found in damage)
        return  # what such a table says of files may be wrong
    columns = ("style_id", "version", "status", "checkpoint_sha256", "checkpoint_bytes", *URIS)
    view = View(tables)
    rows = view.versions(pairs, columns) if pairs is not None else [*view.ask(Question(columns, deleted=True))]
    for row in rows:
        if row["status"] in ("ready", "deleted"):
            yield row["style_id"], row["version"]
            yield from _look_at(row, quick)
    if pairs is None:
        for folder in orphans(tables, (now or datetime.now(UTC)) - ORPHAN_GUARD):
            unfinished = folder.startswith(f"{STATES}/")
            what = "states of a training that was not ended" if unfinished else "no version needs it"
            yield Finding("orphan", "", tables.storage.child_uri(folder), f"{what}; gc frees it")


_ANEW = (
    "or move catalog and catalog_events aside: training again with the same flags registers finished styles without "
    "computing them"
)
_REMEDIES = {
    ROWS: _ANEW,
    EVENTS: "or move catalog_events aside: versions stay, aliases, added tags, notes and deletions are lost",
}


def _look_at(row: dict[str, Any], quick: bool) -> Iterator[Finding]:
    name = f"{row['style_id']}@{row['version']}"
    uri = row["checkpoint_uri"]
    try:
        checkpoint = Storage.open(uri)
        size = checkpoint.size()
        if size != row["checkpoint_bytes"]:
            yield Finding("damaged", name, uri, f"has {size} bytes, not {row['checkpoint_bytes']}")
        elif not quick and checkpoint.sha256() != row["checkpoint_sha256"]:
            yield Finding("damaged", name, uri, "its sha256 is not the one registered")
    except NotFound:
        yield Finding("missing", name, uri, "there is no such checkpoint")
    except StorageError as error:
        yield Finding("unreadable", name, uri, str(error))
    for column in URIS[1:]:
        try:
            if row[column] and not Storage.open(row[column]).exists():
                yield Finding("missing", name, row[column], f"there is no such file, which {column} names")
        except StorageError as error:
            yield Finding("unreadable", name, row[column], str(error))
