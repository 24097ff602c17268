"""What is compared: the method under its settings, colour transfer, the photographs, and folders of other methods."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from catalog.output_names import relative_key, uri_key
from cluster.storage import Storage
from jobs.streaming.inputs.item import READABLE
from jobs.streaming.listing import Item, Source, open_source
from jobs.streaming.variants import Variant
from osasis.settings import StylizeConfig

OURS, COLOUR, PHOTOGRAPH = "ours", "colour-transfer", "photograph"
FLOORS = (COLOUR, PHOTOGRAPH)
"""Always measured: what a style costs nothing to reach, and what doing nothing gives."""

Names = dict[str, str]
"""Files of a folder, by the stem that they are matched by."""


@dataclass(frozen=True)
class Pairing(Variant):
    """A method under a setting, in one style."""

    method: str = OURS
    setting: str = ""
    """As it was given, such as ``lambda_spn=0.5``; empty: the defaults."""
    config: StylizeConfig | None = None
    """Of ours."""
    folder: str | None = None
    """Of another method: its pictures in this style."""

    @property
    def label(self) -> str:
        return f"{self.style}~{self.method}{'~' * bool(self.setting)}{self.setting}"

    @property
    def columns(self) -> dict[str, Any]:
        return super().columns | {"method": self.method, "setting": self.setting}


@dataclass(frozen=True)
class Group:
    """A row of a table: a method under a setting, over all styles."""

    method: str
    setting: str
    params_hash: str

    @property
    def name(self) -> str:
        return f"{self.method}, {self.setting}" if self.setting else self.method


def group_hash(method: str, config: StylizeConfig | None, folder: str | None, common: Sequence[Any]) -> str:
    """Identity of everything that changes figures, style and photograph aside. 16 hex digits."""
    asked = config.model_dump(mode="json") if config else None
    values = [method, asked, folder, *common]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def stem(name: str) -> str:
    """What a file is matched by: its name without the last extension of a picture."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in READABLE else name


def pictures_of_folder(folder: Storage) -> Names:
    """Pictures below a folder by :func:`stem`, those of a stylize output too, whose names keep the photograph's."""
    return {stem(info.name): info.name for info in folder.walk() if PurePosixPath(info.name).suffix.lower() in READABLE}


def found_in(names: Names, key: str, uri: str) -> str | None:
    """The file that belongs to a photograph: ``a.png`` and ``a.jpg.png`` both belong to ``a.jpg``."""
    if key == uri_key(uri):  # of a table's rows the key has a hash, which no other method would know
        key = relative_key(uri.rpartition("/")[2])
    return names.get(key) or names.get(stem(key))


@dataclass(frozen=True)
class Aligned:
    """The photographs that every folder has a picture of, so that all methods are measured on the same ones."""

    unique = False
    source: Source
    folders: dict[str, Names]
    """By what is said where a picture is missing, such as the method and style."""

    @property
    def in_blocks(self) -> bool:
        return self.source.in_blocks

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        for item in self.source.items(passed_over):
            lacking = next(
                (name for name, names in self.folders.items() if not found_in(names, item.key, item.uri)), None
            )
            if lacking is None:
                yield item
            elif passed_over is not None:
                passed_over[f"without a picture of {lacking}"] += 1

    def read(self, locator: str) -> bytes:
        return self.source.read(locator)


@dataclass(frozen=True)
class Chosen:
    """Photographs that were picked, by URI."""

    unique = False
    in_blocks = False
    uris: tuple[str, ...]

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        yield from (Item(uri, uri_key(uri), uri) for uri in self.uris)

    def read(self, locator: str) -> bytes:
        return read_one(locator)


def read_one(uri: str) -> bytes:
    """The photograph of this URI, be it a file, or a member of a shard or table."""
    source = open_source(uri)
    return source.read(next(source.items()).locator)
