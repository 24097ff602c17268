"""Which files below the storage belong to which version.

A training, or an import, leaves ``checkpoints/<style>/<key>/`` with the checkpoint, its pictures and, written last, a
record that the folder is whole. Rows may also name files that stand elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.storage import FileInfo, Storage

FOLDER = "checkpoints"
WHOLE = "result.json"
"""Says that a folder is whole; the first to go when it is freed."""
MARK = "claimed"
"""Written to a folder when its registration begins, and left there: gc takes no folder that was written to lately."""
URIS = ("checkpoint_uri", "reference_uri", "photo_uri", "preview_uri")
"""Columns that name files of a version."""


def inside(storage: Storage, uri: str | None) -> str | None:
    """The name of a file below the storage; None for one elsewhere, which the catalog never touches."""
    prefix = f"{storage.uri.rstrip('/')}/"
    return uri.removeprefix(prefix) if uri and uri.startswith(prefix) and "/../" not in uri else None


def folder_of(storage: Storage, checkpoint_uri: str) -> str | None:
    """``checkpoints/<style>/<key>``; None where a checkpoint stands elsewhere."""
    parts = (inside(storage, checkpoint_uri) or "").split("/")
    return "/".join(parts[:3]) if len(parts) == 4 and parts[0] == FOLDER else None


def owned(storage: Storage, rows: Iterable[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """(folders, names of files) that these rows need."""
    folders: set[str] = set()
    names: set[str] = set()
    for row in rows:
        names |= {name for column in URIS if (name := inside(storage, row[column]))}
        if folder := folder_of(storage, row["checkpoint_uri"]):
            folders.add(folder)
    return folders, names


def stored(storage: Storage) -> dict[str, list[FileInfo]]:
    """Files below ``checkpoints`` by folder, named from the storage on; a file at another depth is its own folder."""
    found: dict[str, list[FileInfo]] = defaultdict(list)
    for info in storage.walk(FOLDER):
        name = f"{FOLDER}/{info.name}"
        parts = name.split("/")
        found["/".join(parts[:3]) if len(parts) >= 4 else name].append(
            FileInfo(name, info.size, info.version, info.modified)
        )
    return dict(found)
