"""The folder of a trained style, and which files below the storage belong to which version.

A training, or an import, leaves ``checkpoints/<style>/<key>/`` with the checkpoint, its pictures and, written last, the
training's result, which says that the folder is whole. Rows may also name files that stand elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from catalog.located import inside
from catalog.schema import NewStyle
from cluster.storage import FileInfo, Storage, StorageError

FOLDER = "checkpoints"
STATES = "train"
"""Where a training that is under way keeps its states: one folder each, removed when the style is registered."""
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
            style = NewStyle.model_validate_json(self.place.read_bytes(RESULT))
        except ValidationError as error:
            raise StorageError(f"{self.uri(RESULT)}: empty, cut short or not a training's result") from error
        # The storage may have been moved since.
        names = {column: uri.rpartition("/")[2] for column in URIS if (uri := getattr(style, column))}
        return style.model_copy(update={column: self.uri(name) for column, name in names.items()})

    def finished(self) -> tuple[NewStyle | None, str]:
        """(the result, why there is none) of a training whose checkpoint is as the result says; ("" if it never ended).

        Raises:
            StorageError: storage does not answer.
        """
        if not self.place.exists(RESULT):
            return None, ""
        try:
            style = self.read_result()
        except StorageError as error:
            return None, str(error)
        problem = checkpoint_problem(style)
        return (None, problem) if problem else (style, "")


def checkpoint_problem(style: NewStyle) -> str:
    """What is wrong with a checkpoint as far as its size tells; empty if nothing.

    Raises:
        StorageError: its storage does not answer.
    """
    info = Storage.open(style.checkpoint_uri).stat()
    if info is None:
        return f"{style.checkpoint_uri}: no such checkpoint"
    return (
        ""
        if info.size == style.checkpoint_bytes
        else (f"{style.checkpoint_uri}: has {info.size} bytes, not {style.checkpoint_bytes}")
    )


def checkpoint_problems(styles: Sequence[NewStyle]) -> list[str]:
    """Of many styles at once; see :func:`checkpoint_problem`."""
    with ThreadPoolExecutor(16) as pool:
        return [problem for problem in pool.map(checkpoint_problem, styles) if problem]


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
    """Files below ``checkpoints`` and those of unfinished trainings, by folder, named from the storage on.

    A file at another depth than a folder's is its own folder.
    """
    found: dict[str, list[FileInfo]] = defaultdict(list)
    for top, depth in ((FOLDER, 3), (STATES, 2), (f"leases/{STATES}", 3)):
        for info in storage.walk(top):
            name = f"{top}/{info.name}"
            parts = name.split("/")
            folder = "/".join(parts[:depth]) if len(parts) > depth else name
            found[folder].append(FileInfo(name, info.size, info.version, info.modified))
    return dict(found)
