"""Registration: the checkpoint is looked at first, then its row appears, or nothing does."""

from collections.abc import Sequence
from typing import Any

from deltalake import DeltaTable

from catalog.changes import Changes
from catalog.delta import read_table
from catalog.errors import CheckpointMismatch
from catalog.located import to_stored
from catalog.schema import NewStyle, StyleVersion
from catalog.style_folder import MARK, URIS, checkpoint_problem, folder_of
from catalog.tables import Commit, Tables
from catalog.view import VersionKey, View
from cluster.storage import Storage


def register(tables: Tables, new: NewStyle) -> StyleVersion:
    """The version that was added; or the newest with this very checkpoint, restored if it was deleted.

    Raises:
        CheckpointMismatch: the checkpoint is not there or not the one described.
        StorageError: as :meth:`Log.append`, or gc is freeing the files of that version.
    """
    new = new.model_copy(update={"checkpoint_uri": Storage.open(new.checkpoint_uri).uri})
    if folder := folder_of(tables.storage, new.checkpoint_uri):
        tables.storage.write_bytes(f"{folder}/{MARK}", b"")  # keeps gc away from it
    check_checkpoint(new)
    found = 0
    added: StyleVersion | None = None

    def decide(table: DeltaTable) -> Commit:
        nonlocal found, added
        known = _known(table, new.style_id)
        same = [version for version, digest in known.items() if digest == new.checkpoint_sha256]
        found = _newest_kept(View(tables), [(new.style_id, version) for version in same]) if same else 0
        if found:
            return Commit([])
        added = StyleVersion.of(new, max(known, default=0) + 1)
        # Of concurrent registrations of one style each gets a version of its own; other styles do not disturb it.
        return Commit([_row(added, tables.storage)], {new.style_id: added.version})

    if tables.rows.append(decide, f"register {new.style_id} in").rows and added:
        return added
    Changes(tables).restore([(new.style_id, found)])
    return read_versions(View(tables), [(new.style_id, found)])[0]


def _row(version: StyleVersion, storage: Storage) -> dict[str, Any]:
    row = version.to_row()
    return row | {name: to_stored(storage, version.style_id, row[name]) for name in URIS if row[name] is not None}


def read_versions(view: View, keys: Sequence[VersionKey]) -> list[StyleVersion]:
    """These versions, whole, in the order given."""
    rows = {(row["style_id"], row["version"]): row for row in view.versions(keys, [*view.columns(), "clip_embedding"])}
    return [StyleVersion.from_row(rows[key]) for key in keys]


def _newest_kept(view: View, pairs: Sequence[VersionKey]) -> int:
    """0 where the files of all were freed."""
    states = {row["version"]: row["status"] for row in view.versions(pairs, ("status",))}
    if busy := [version for version, status in states.items() if status == "purging"]:
        name = f"{pairs[0][0]}@{busy[0]}"
        raise CheckpointMismatch(f"gc was freeing the files of {name}; run gc to its end, then train again")
    return max((version for version, status in states.items() if status != "purged"), default=0)


def _known(table: DeltaTable, style_id: str) -> dict[int, str]:
    """sha256 of the checkpoint of every version of a style."""
    batches = read_table(table, ["version", "checkpoint_sha256"], f"style_id = '{style_id}'")
    rows = [row for batch in batches for row in batch.to_pylist()]
    return {row["version"]: row["checkpoint_sha256"] for row in rows}


def check_checkpoint(new: NewStyle) -> None:
    """A row exists only when its checkpoint is whole and readable.

    Raises:
        CheckpointMismatch: ``checkpoint_uri`` does not hold ``checkpoint_bytes`` of ``checkpoint_sha256``.
    """
    problem = checkpoint_problem(new)
    if not problem and Storage.open(new.checkpoint_uri).sha256() != new.checkpoint_sha256:
        problem = f"{new.checkpoint_uri}: its sha256 is another"
    if problem:
        raise CheckpointMismatch(f"{problem}; {new.style_id} was not registered")
