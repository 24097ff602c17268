"""Picture files: all below a folder or prefix, or a single one."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from catalog.output_names import relative_key
from cluster.storage import Storage
from jobs.streaming.inputs.item import Alone, Item, as_text, opened, why_none


@dataclass(frozen=True)
class FolderSource(Alone):
    """Picture files below a folder or prefix, links to other folders included."""

    folder: Storage

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        passed_over = Counter() if passed_over is None else passed_over
        for name in names_below(self.folder, passed_over):
            if reason := why_none(name):
                passed_over[reason] += 1
            else:
                yield self._item(name)

    def read(self, locator: str) -> bytes:
        if self.folder.is_local:
            return opened(locator).read_bytes()
        return self.folder.read_bytes(locator)

    def _item(self, name: str) -> Item:
        uri = as_text(f"{self.folder.uri}/{name}")
        return Item(uri, relative_key(name), uri if self.folder.is_local else name)


@dataclass(frozen=True)
class FileSource(Alone):
    """A single file, whatever its name."""

    file: Storage

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        yield Item(as_text(self.file.uri), relative_key(PurePosixPath(self.file.path).name), "")

    def read(self, locator: str) -> bytes:
        return self.file.read_bytes(locator)


def names_below(folder: Storage, passed_over: Counter[str]) -> Iterator[str]:
    """Names of all files below a folder, relative to it; links to folders that are listed anyway are counted."""
    for info in folder.walk():
        yield info.name
    if folder.is_local:
        for link in linked_folders(folder.path, passed_over):
            for info in Storage.open(os.path.join(folder.path, link)).walk():
                yield os.path.join(link, info.name)


def files_below(folder: Storage, suffixes: frozenset[str], passed_over: Counter[str]) -> list[str]:
    """Sorted names of the files with one of these extensions; others are counted by reason."""
    found = []
    for name in names_below(folder, passed_over):
        if reason := why_none(name, suffixes):
            passed_over[reason] += 1
        else:
            found.append(name)
    return sorted(found)


def linked_folders(root: str, passed_over: Counter[str]) -> Iterator[str]:
    """Links below a local folder, and below what they lead to, to folders not listed otherwise; relative to it."""
    listed = [os.path.realpath(root)]
    waiting = [""]
    while waiting:
        start = waiting.pop(0)
        for folder, folders, _ in os.walk(os.path.join(root, start)):
            for name in sorted(folders):
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    continue
                target = os.path.realpath(path)
                if any(os.path.commonpath([target, known]) in (target, known) for known in listed):
                    passed_over["links to folders that are listed anyway"] += 1
                    continue
                listed.append(target)
                waiting.append(os.path.relpath(path, root))
                yield waiting[-1]
