"""What every kind of input has in common: items, sources, and names as people have them."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes

from catalog.output_names import uri_key
from cluster.storage import Storage

READABLE = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
PICTURES = READABLE | {".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd"}
"""Extensions taken from a folder: those that cannot be read too, to be rejected rather than overlooked."""

FILES_AT_ONCE = 16
"""Files of a folder that are looked into at once."""

_FILE = "file://"
_NO_FILE = "!"


@dataclass(frozen=True)
class Item:
    """One input. ``locator`` is what the source's ``read`` takes. All are valid Unicode."""

    uri: str
    key: str
    locator: str


class Source(Protocol):
    """A stream of inputs and a way to read each, usable on any node."""

    @property
    def unique(self) -> bool:
        """Whether no input can come twice."""
        ...

    @property
    def in_blocks(self) -> bool:
        """Whether reading one input means to read its neighbours, so that large chunks cost less."""
        ...

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """All inputs, in an order that is the same every time while nothing changes; counts what is none, by reason."""
        ...

    def read(self, locator: str) -> bytes:
        """Bytes of one input."""
        ...


class Alone:
    """Of sources whose inputs come once, each read by itself."""

    unique = True
    in_blocks = False


def no_file(reason: str) -> str:
    """The locator of an input that cannot be read."""
    return f"{_NO_FILE}{reason}"


def read_located(locator: str) -> bytes:
    """Of a locator that is a URI, or :func:`no_file`'s.

    Raises:
        FileNotFoundError: with the reason, for the latter.
        StorageError: as any file.
    """
    if locator.startswith(_NO_FILE):
        raise FileNotFoundError(locator.removeprefix(_NO_FILE))
    return opened(locator).read_bytes()


def as_text(path: str) -> str:
    """``path`` itself, or ``file://…`` where it has bytes that are no UTF-8, which Python keeps as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"{_FILE}{quote(os.fsencode(path))}"
    return path


def opened(uri: str) -> Storage:
    """The storage of a URI, also of those that :func:`as_text` makes."""
    if uri.startswith(f"{_FILE}/"):
        return Storage(os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix(_FILE)))))
    return Storage.open(uri)


def suffix_of(name: str) -> str:
    """Extension in small letters, with its dot; also of ``photo.jpg?w=600``, as downloads leave it."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return suffix
    bare = PurePosixPath(re.sub(r"[?#].*", "", path.name)).suffix.lower()
    return bare if bare in PICTURES else suffix


def why_none(name: str, wanted: frozenset[str] = PICTURES) -> str | None:
    """The reason why a file of a folder is no input; None for those with an extension that is wanted."""
    if name.endswith("/") or not name:
        return "folder markers"
    if any(part.startswith(".") for part in PurePosixPath(name).parts):
        return "hidden"
    suffix = suffix_of(name)
    if suffix in wanted:
        return None
    return f"{suffix.encode(errors='replace').decode()} files" if suffix else "without extension"


class Rejected(Exception):
    """A file of inputs cannot be read as one; the message says why."""


def failing(uri: str, reason: str) -> Item:
    """An input that stands for something that cannot be read."""
    return Item(uri, uri_key(uri), no_file(reason))
