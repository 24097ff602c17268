"""Registration: the checkpoint is looked at first, then its row appears, or nothing does."""

from collections.abc import Sequence

from deltalake import DeltaTable

from catalog.changes import Changes, Pair
from catalog.errors import CheckpointMismatch
from catalog.schema import NewStyle, StyleVersion
from catalog.style_folder import MARK, folder_of
from catalog.tables import Commit, Log
from catalog.view import View
from cluster.storage import Storage


def register(rows: Log, events: Log, new: NewStyle) -> StyleVersion | Pair:
    """As :func:`_register`, after a mark in the checkpoint's folder that keeps gc away from it."""
    folder = folder_of(rows.storage, new.checkpoint_uri)
    if folder is not None:
        rows.storage.write_bytes(f"{folder}/{MARK}", b"")
    return _register(rows, events, new)


def _register(rows: Log, events: Log, new: NewStyle) -> StyleVersion | Pair:
    """The version that was added; or which is the newest with this very checkpoint, restored if it was deleted.

    Raises:
        CheckpointMismatch: the checkpoint is not there or not the one described.
        StorageError: as :meth:`Log.append`, or gc is freeing the files of that version.
    """
    check_checkpoint(new)
    found = 0
    added: StyleVersion | None = None

    def decide(table: DeltaTable) -> Commit:
        nonlocal found, added
        known = _known(table, new.style_id)
        same = [version for version, digest in known.items() if digest == new.checkpoint_sha256]
        found = _newest_kept(View(rows, events), [(new.style_id, version) for version in same]) if same else 0
        if found:
            return Commit([])
        added = StyleVersion.of(new, max(known, default=0) + 1)
        # Of concurrent registrations of one style each gets a version of its own; other styles do not disturb it.
        return Commit([added.to_row()], {new.style_id: added.version})

    if rows.append(decide, f"register {new.style_id} in").rows and added:
        return added
    Changes(rows, events).restore([(new.style_id, found)])
    return new.style_id, found


def _newest_kept(view: View, pairs: Sequence[Pair]) -> int:
    """0 where the files of all were freed."""
    states = {row["version"]: row["status"] for row in view.versions(pairs, ("status",))}
    if busy := [version for version, status in states.items() if status == "purging"]:
        name = f"{pairs[0][0]}@{busy[0]}"
        raise CheckpointMismatch(f"gc was freeing the files of {name}; run gc to its end, then train again")
    return max((version for version, status in states.items() if status != "purged"), default=0)


def _known(table: DeltaTable, style_id: str) -> dict[int, str]:
    """sha256 of the checkpoint of every version of a style."""
    import pyarrow as pa

    reader = table.scan(columns=["version", "checkpoint_sha256"], predicate=f"style_id = '{style_id}'")
    try:
        found = pa.table(reader).to_pydict()
    except pa.ArrowException as error:  # wraps what storage raises while it is read
        raise OSError(str(error)) from error
    return dict(zip(found["version"], found["checkpoint_sha256"], strict=True))


def check_checkpoint(new: NewStyle) -> None:
    """A row exists only when its checkpoint is whole and readable.

    Raises:
        CheckpointMismatch: ``checkpoint_uri`` does not hold ``checkpoint_bytes`` of ``checkpoint_sha256``.
    """
    checkpoint = Storage.open(new.checkpoint_uri)
    info = checkpoint.stat()
    if info is None:
        raise CheckpointMismatch(f"{checkpoint}: no such checkpoint; {new.style_id} was not registered")
    if info.size != new.checkpoint_bytes:
        raise CheckpointMismatch(
            f"{checkpoint}: has {info.size} bytes, not {new.checkpoint_bytes}; {new.style_id} was not registered"
        )
    if checkpoint.sha256() != new.checkpoint_sha256:
        raise CheckpointMismatch(f"{checkpoint}: its sha256 is another; {new.style_id} was not registered")
