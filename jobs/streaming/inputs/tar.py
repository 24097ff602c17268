"""WebDataset: a tar file or a folder of them, whose members are pictures, grouped in samples by their names.

Listing reads the headers of members and skips their content; a picture is read by its place in the shard. So no shard
is ever held in memory, and any of its pictures can be read again.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from catalog.output_names import relative_key
from cluster.storage import Storage, StorageError, StorageUnavailable
from cluster.storage.interleave import interleaved
from jobs.streaming.inputs.folder import files_below
from jobs.streaming.inputs.item import (
    FILES_AT_ONCE,
    PICTURES,
    Item,
    Rejected,
    as_text,
    failing,
    no_file,
    opened,
    suffix_of,
    why_none,
)

TAR = frozenset([".tar"])

_PART = 64
"""Members that are listed at a time."""

_WINDOW = 16 << 10
"""Bytes read at once while headers are looked for."""


@dataclass(frozen=True)
class TarSource:
    """Members of shards that are pictures; with ``extension``, such as ``jpg``, those of that extension alone."""

    place: Storage
    extension: str | None
    is_file: bool
    unique = False  # a tar file may hold a name twice
    in_blocks = False

    def items(self, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        passed_over = Counter() if passed_over is None else passed_over
        names = [""] if self.is_file else files_below(self.place, TAR, passed_over)
        for found, others in interleaved((self._shard(name) for name in names), FILES_AT_ONCE):
            passed_over.update(others)
            yield from found

    def read(self, locator: str) -> bytes:
        if locator.startswith(no_file("")):
            raise FileNotFoundError(locator.removeprefix(no_file("")))
        start, size, version, uri = locator.split(" ", 3)
        data = opened(uri).read_range(int(start), int(start) + int(size), version=version)
        if len(data) < int(size):
            raise EOFError(f"the shard ends {int(size) - len(data)} bytes before the end of this member")
        return data

    def _shard(self, name: str) -> Iterator[tuple[list[Item], Counter[str]]]:
        """Inputs of a shard and what else is in it, by reason; :data:`_PART` at a time."""
        shard = Storage(f"{self.place.uri}/{name}") if name else self.place
        namer = _Namer(as_text(shard.uri), (name or shard.uri.rpartition("/")[2]).removesuffix(".tar"))
        part: list[Item] = []
        others: Counter[str] = Counter()
        try:
            for found in self._members(shard, namer):
                if isinstance(found, Item):
                    part.append(found)
                else:
                    others[found] += 1
                if len(part) + others.total() >= _PART:
                    yield part, others
                    part, others = [], Counter()
        except StorageUnavailable:
            raise
        except (Rejected, StorageError) as error:
            part.append(failing(f"{namer.uri}#", str(error)))
        yield part, others

    def _members(self, shard: Storage, namer: "_Namer") -> Iterator[Item | str]:
        """An input, or the reason why it is none, for each member.

        Raises:
            Rejected: the shard is damaged, after the members that were given.
        """
        wanted = frozenset([f".{self.extension.lower().removeprefix('.')}"]) if self.extension else PICTURES
        count = 0
        try:
            headers = _Headers(shard)
            with tarfile.open(fileobj=headers, mode="r:", errorlevel=0) as tar:  # type: ignore[call-overload]
                while member := tar.next():
                    tar.members = []  # type: ignore[attr-defined]  # which keeps all of them otherwise
                    count += 1
                    name = member.name.removeprefix("./")
                    yield _why_none(member, name, wanted) or namer(name, member, headers.version)
        except tarfile.TarError as error:
            raise Rejected(
                f"the shard is damaged after {count} members: {error}" if count else f"no tar file: {error}"
            ) from None


def _why_none(member: tarfile.TarInfo, name: str, wanted: frozenset[str]) -> str | None:
    if member.isdir():
        return "folders in shards"
    if not member.isreg() or member.issparse():
        return "members of shards that are not plain files"
    reason = why_none(name, wanted)
    return reason and (reason if reason == "hidden" else f"{suffix_of(name) or 'unnamed'} members of shards")


class _Namer:
    """Inputs of a shard. Keys are those of samples, ``folder/sample``; of a sample's further pictures, whole names."""

    def __init__(self, uri: str, folder: str) -> None:
        self.uri, self._folder = uri, folder
        self._taken: set[str] = set()

    def __call__(self, name: str, member: tarfile.TarInfo, version: str) -> Item:
        parent, slash, last = name.rpartition("/")
        sample = f"{parent}{slash}{last.partition('.')[0]}"
        key = relative_key(f"{self._folder}/{name if sample in self._taken else sample}")
        self._taken.add(sample)
        return Item(as_text(f"{self.uri}#{name}"), key, f"{member.offset_data} {member.size} {version} {self.uri}")


class _Headers(io.RawIOBase):
    """A shard, read in small windows around where its headers are."""

    def __init__(self, shard: Storage) -> None:
        info = shard.stat()
        if info is None:
            raise Rejected("no such file")
        self._shard, self._size, self.version = shard, info.size, info.version
        self._position, self._start, self._window = 0, 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._size)
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._position + size, self._size)
        if not self._start <= self._position <= end <= self._start + len(self._window):
            self._start = self._position
            whole = max(end, min(self._position + _WINDOW, self._size))
            self._window = (
                self._shard.read_range(self._position, whole, version=self.version) if whole > self._start else b""
            )
        data = self._window[self._position - self._start : end - self._start]
        self._position += len(data)
        return data
