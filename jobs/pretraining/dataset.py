"""Training images decoded once for a cluster by Ray Data, and read by each node from its own disk.

``data/<key>/`` below the working folder: shards uint8 [n, H, H, 3] as .npy, ``rows.json`` with the rows of what was
kept, and ``index.json``, written last. The key says source, content and size, so that changed data is another set.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray.data
from filelock import FileLock
from ray.data import DataContext

from cluster.storage import Storage
from cluster.storage.cache import default_cache_dir, fetch, owned
from jobs.pretraining.sources import Source, read_chunk
from jobs.pretraining.tables import Row
from osasis.errors import ImageRejected, OsasisError
from osasis.image import DECODER, decode_image, fit
from osasis.pretrain.crops import JoinedImages

_INDEX, _ROWS = "index.json", "rows.json"
_SHARD_BYTES = 64 << 20


def shard_images(size: int) -> int:
    """Images in a shard: few enough for a small set to be decoded by several workers."""
    return max(1, min(512, _SHARD_BYTES // (3 * size * size)))


def data_name(source: Source, size: int, least_side: int) -> str:
    """Folder of the decoded set, below the working folder."""
    key = hashlib.sha256(f"{source.storage} {source.digest} {size} {least_side} {DECODER}".encode()).hexdigest()[:16]
    return f"data/{key}"


def prepare(source: Source, work: Storage, size: int, least_side: int, say: Callable[[str], None]) -> str:
    """Decode a source into the working folder; chunks done before are kept. Returns the set's name.

    Args:
        size: side of the centre-cropped squares.
        least_side: pictures with a shorter side are left out: enlarged ones teach blur.

    Raises:
        OsasisError: no image could be used.
    """
    name = data_name(source, size, least_side)
    folder = work.child(name)
    if folder.exists(_INDEX):
        return name

    storage = source.storage  # the task takes it alone, not the list of all chunks

    def decode(item: dict[str, Any]) -> dict[str, Any]:
        return {"number": item["number"], "result": _decode_chunk(storage, item, folder, size, least_side)}

    items = [{"number": i, "chunk": chunk} for i, chunk in enumerate(source.chunks)]
    results: dict[int, dict[str, Any]] = {}
    with quiet_data():
        for row in ray.data.from_items(items, override_num_blocks=len(items)).map(decode).iter_rows():
            results[row["number"]] = json.loads(row["result"])
            if len(results) % 100 == 0:
                say(f"decoded {len(results)} of {len(items)} chunks")
    parts = [results[number] for number in sorted(results)]
    index = {key: [entry for part in parts for entry in part[key]] for key in ("shards", "rejected")}
    for line in index["rejected"][:50]:
        say(f"left out {line}")
    if len(index["rejected"]) > 50:
        say(f"… {len(index['rejected'])} images left out, all in {folder.child_uri(_INDEX)}")
    if not index["shards"]:
        raise OsasisError(f"no usable image in {source.storage}: {index['rejected'][0]}")
    folder.write_bytes(_ROWS, json.dumps([row for part in parts for row in part["rows"]]).encode())
    folder.write_bytes(_INDEX, json.dumps({"size": size, **index}).encode())
    return name


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data's own progress is left out; ours is a line now and then."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        yield


def _decode_chunk(storage: Storage, item: dict[str, Any], folder: Storage, size: int, least_side: int) -> str:
    done = f"chunk-{item['number']:06d}.json"
    if folder.exists(done):
        return folder.read_bytes(done).decode()
    result: dict[str, list[Any]] = {"shards": [], "rows": [], "rejected": []}
    squares: list[np.ndarray] = []

    def flush() -> None:
        if squares:
            shard = f"shard-{item['number']:06d}-{len(result['shards']):03d}.npy"
            data = dump_array(np.stack(squares))
            folder.write_bytes(shard, data)
            digest = hashlib.sha256(data).hexdigest()
            result["shards"].append({"name": shard, "count": len(squares), "bytes": len(data), "sha256": digest})
            squares.clear()

    for row, data, error in read_chunk(storage, item["chunk"]):
        try:
            if data is None:
                raise ImageRejected("missing", error)
            picture = decode_image(data)
            if min(picture.size) < least_side:
                raise ImageRejected("too-small", f"{picture.width}×{picture.height}, less than {least_side} pixels")
            squares.append(np.asarray(fit(picture, size, "crop")[0]))
            result["rows"].append(row)
        except ImageRejected as rejection:
            result["rejected"].append(f"{row['file']}: {rejection}")
        if len(squares) == shard_images(size):
            flush()
    flush()
    text = json.dumps(result)
    folder.write_bytes(done, text.encode())
    return text


def open_images(work: Storage, name: str) -> JoinedImages:
    """The decoded set on this node's disk, memory-mapped; fetched and verified once per node.

    Raises:
        OsasisError: a shard is not what the index says.
    """
    folder = fetch(work.child_uri(name))
    shards = json.loads((folder / _INDEX).read_bytes())["shards"]
    stamp = owned(default_cache_dir() / "verified") / hashlib.sha256(f"{folder}{shards}".encode()).hexdigest()[:16]
    with FileLock(f"{stamp}.lock"):  # of several workers of a node, one verifies
        for shard in shards:
            path = folder / shard["name"]
            whole = path.stat().st_size == shard["bytes"]
            if not whole or (not stamp.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != shard["sha256"]):
                raise OsasisError(f"{path} is damaged: remove {folder}, and it is made again")
        stamp.touch()
    return JoinedImages([np.load(folder / s["name"], mmap_mode="r", allow_pickle=False) for s in shards])


def open_shard(work: Storage, name: str, shard: str) -> np.ndarray:
    """One shard [n, H, H, 3] on this node's disk, memory-mapped."""
    return np.load(fetch(work.child_uri(f"{name}/{shard}")), mmap_mode="r", allow_pickle=False)


def shard_names(work: Storage, name: str) -> list[str]:
    return [shard["name"] for shard in json.loads(work.read_bytes(f"{name}/{_INDEX}"))["shards"]]


def read_rows(work: Storage, name: str) -> list[Row]:
    return json.loads(work.read_bytes(f"{name}/{_ROWS}"))


def spread(total: int, count: int) -> Iterator[int]:
    """``count`` numbers below ``total``, evenly spread; all of them where there are no more."""
    return (i * total // min(count, total) for i in range(min(count, total)))


def dump_array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
