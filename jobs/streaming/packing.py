"""Output in shards: the pictures of a chunk in one style become one WebDataset tar or Parquet file (``--pack``).

Takes outcomes with their pictures' bytes; gives the outcomes once their shard is durable, all of them together, so that
the manifest has all rows of a shard or none. A shard is written once, under a name of its own; what a killed process
left without rows is removed by :func:`swept`, at the end of the run or by the next one.
"""

import io
import json
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.manifest import Manifest
from catalog.output_names import PACKED, member_name, shard_folder
from cluster.storage import Storage, StorageError
from jobs.streaming.failures import RunStopped
from jobs.streaming.rows import Row
from osasis.imaging.encode import EXTENSIONS, FileFormat

PackFormat = Literal["webdataset", "parquet"]

_UNFINISHED = f"{PACKED}/unfinished"
_ROW_GROUP = 100
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SAID = ("input_uri", "input_sha256", "width", "height", "transform", "structure", "style")


@dataclass(frozen=True)
class Pack:
    """Where shards go, and of which kind they are."""

    output: Storage
    kind: PackFormat
    picture_format: FileFormat
    run_id: str

    def write(self, label: str, outcomes: Sequence[Row]) -> list[Row]:
        """The outcomes of one variant, their pictures in a shard; ``data`` of those that are done is taken out.

        Raises:
            RunStopped: the shard cannot be stored.
        """
        done = [outcome for outcome in outcomes if outcome["status"] == "done"]
        if not done:
            return [*outcomes]
        suffix = {"webdataset": "tar", "parquet": "parquet"}[self.kind]
        name = f"{shard_folder(label, self.run_id)}/{uuid.uuid4().hex}.{suffix}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "shard"
            fill = self._tar if self.kind == "webdataset" else self._parquet
            places = fill(file, done)
            try:
                self.output.upload_file(file, name)
            except StorageError as error:
                raise RunStopped(f"a shard cannot be stored: {error}") from None
        uri = self.output.child_uri(name)
        placed = iter(places)
        found = []
        for outcome in outcomes:
            known = {key: value for key, value in outcome.items() if key != "data"}
            if outcome["status"] == "done":
                within, start, size = next(placed)
                known |= {"output_uri": f"{uri}#{within}", "output_offset": start, "output_bytes": size}
            found.append(known)
        return found

    def _tar(self, file: Path, done: Sequence[Row]) -> list[tuple[str, int | None, int]]:
        """(member, offset, bytes) of each picture; a ``.json`` beside it says what it was made from."""
        places: list[tuple[str, int | None, int]] = []
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for outcome in done:
                sample = member_name(outcome["key"])
                picture = f"{sample}{EXTENSIONS[self.picture_format]}"
                info = tarfile.TarInfo(picture)
                info.size = len(outcome["data"])
                tar.addfile(info, io.BytesIO(outcome["data"]))
                places.append((picture, tar.offset - -(-info.size // 512) * 512, info.size))  # type: ignore[attr-defined]
                said = json.dumps({name: outcome.get(name) for name in _SAID}).encode()
                info = tarfile.TarInfo(f"{sample}.json")
                info.size = len(said)
                tar.addfile(info, io.BytesIO(said))
        return places

    def _parquet(self, file: Path, done: Sequence[Row]) -> list[tuple[str, int | None, int]]:
        """(row, None, bytes) of each picture, numbered from 1."""
        ending = EXTENSIONS[self.picture_format]
        columns: dict[str, Any] = {
            "key": [outcome["key"] for outcome in done],
            "image": pa.array([{"bytes": o["data"], "path": f"{o['key']}{ending}"} for o in done], _IMAGE),
        }
        columns |= {name: [outcome.get(name) for outcome in done] for name in _SAID}
        pq.write_table(pa.table(columns), file, row_group_size=_ROW_GROUP)
        return [(f"row={number}", None, len(outcome["data"])) for number, outcome in enumerate(done, 1)]


class Bundle:
    """Gathers the outcomes of one variant at a time, in the order of variants."""

    def __init__(self, pack: Pack | None) -> None:
        self._pack, self._label, self._held = pack, "", list[Row]()

    def add(self, label: str, outcomes: list[Row]) -> Iterator[list[Row]]:
        """Outcomes that can be told: these, or those of the variant before once its shard is stored."""
        if self._pack is None:
            yield outcomes
            return
        if label != self._label:
            yield from self.rest()
        self._label = label
        self._held += outcomes

    def rest(self) -> Iterator[list[Row]]:
        """Those that are still held."""
        held, self._held = self._held, []
        if held and self._pack:
            yield self._pack.write(self._label, held)


@contextmanager
def swept(output: Storage, manifest: Manifest, run_id: str, labels: Sequence[str]) -> Iterator[None]:
    """Removes shards without rows: before the body those of runs that were killed, after it those of this one.

    ``labels``: the variants that this run packs, if any. The caller holds the output.
    """
    unfinished = output.child(_UNFINISHED)
    for former in unfinished.list_files(recursive=False):
        _sweep(output, manifest, former, json.loads(unfinished.read_bytes(former)))
        unfinished.delete(former)
    if not labels:
        yield
        return
    unfinished.write_bytes(run_id, json.dumps([*labels]).encode())
    yield
    _sweep(output, manifest, run_id, labels)
    unfinished.delete(run_id)


def _sweep(output: Storage, manifest: Manifest, run_id: str, labels: Sequence[str]) -> None:
    known: set[str] = set()
    for batch in manifest.batches(["output_uri"], f"run_id = '{run_id}' AND status = 'done'"):
        known |= {uri.rpartition("#")[0] for uri in batch["output_uri"].to_pylist() if uri}
    for label in labels:
        folder = shard_folder(label, run_id)
        for name in output.list_files(folder):
            if output.child_uri(f"{folder}/{name}") not in known:
                output.delete(f"{folder}/{name}")
