"""The folder of a trained style, and which files below the storage belong to which version.

A training, or an import, leaves ``checkpoints/<style>/<key>/`` with the checkpoint, its pictures and, written last, the
training's result, which says that the folder is whole. Rows may also name files that stand elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from catalog.schema import NewStyle
from cluster.storage import FileInfo, Storage, StorageError

FOLDER = "checkpoints"
CHECKPOINT = "style.safetensors"
REFERENCE, PHOTO, PREVIEW = "reference.png", "photo.png", "preview.png"
RESULT = "result.json"
"""A :class:`NewStyle`, written last: where it is, all others are whole. The first to go when a folder is freed."""
MARK = "claimed"
"""Written to a folder when its registration begins, and left there: gc takes no folder that was written to lately."""
URIS = ("checkpoint_uri", "reference_uri", "photo_uri", "preview_uri")
"""Columns that name files of a version."""


@dataclass(frozen=True)
class StyleFolder:
    """The files of one training or import, by names that are fixed here."""

    place: Storage

    @classmethod
    def of(cls, storage: Storage, style_id: str, key: str) -> Self:
        """``key``: of what the style is made from, so that the same training finds its folder again."""
        return cls(storage.child(FOLDER, style_id, key))

    def __str__(self) -> str:
        return self.place.uri

    def uri(self, name: str) -> str:
        return self.place.child_uri(name)

    @property
    def checkpoint_uri(self) -> str:
        return self.uri(CHECKPOINT)

    @property
    def is_whole(self) -> bool:
        """Whether a training has left its result."""
        return self.place.exists(RESULT)

    def write(self, name: str, data: bytes) -> str:
        """Write one of the files; its URI."""
        self.place.write_bytes(name, data)
        return self.uri(name)

    def write_result(self, style: NewStyle) -> None:
        """After all other files."""
        self.place.write_bytes(RESULT, style.model_dump_json(indent=2).encode())

    def read_result(self) -> NewStyle:
        """What :meth:`write_result` wrote.

        Raises:
            StorageError: it is not there, or damaged.
        """
        try:
            return NewStyle.model_validate_json(self.place.read_bytes(RESULT))
        except ValidationError as error:
            raise StorageError(f"{self.uri(RESULT)}: empty, cut short or not a training's result") from error


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
