"""A run on many nodes, simulated by events: stages take fixed times, the driver's code and the manifest are real.

The driver plans, takes outcomes in and commits them as in a run; each piece of its work is timed on this machine's
processor and occupies the simulated driver for as long. What Ray and the network take is not part of it.
"""

import heapq
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from catalog.manifest import Manifest
from cluster.storage import Storage
from jobs.streaming.execution import Chunk, _UnderWay
from jobs.streaming.inputs.item import Item
from jobs.streaming.planning import Plan, Tally, chunks
from jobs.streaming.recording import Record
from jobs.streaming.room import CHUNKS_AHEAD
from jobs.streaming.rows import Row, finished_schema, one_row
from jobs.streaming.spent import SPENT
from jobs.streaming.variants import Variant

NODES, BATCH, STYLES, INPUTS = 64, 8, 8, 64
"""Workers, pictures of a batch, styles, inputs of a chunk."""

BATCH_SECONDS = 0.1
"""Of a worker for a batch in a style: 80 pictures/s, as an H100 may reach at 256 pixels by --quality standard."""


@dataclass
class Driver:
    """One server: work queues for it."""

    free: float = 0.0
    busy: Counter[str] = field(default_factory=Counter)

    def work(self, kind: str, now: float, start: float) -> float:
        """When work is through that was there at ``now``, and took this process since ``start``."""
        took = time.process_time() - start
        self.busy[kind] += took  # type: ignore[assignment]  # seconds
        self.free = max(self.free, now) + took
        return self.free


def measure(*, chunks: int, say: Callable[[str], None]) -> None:
    say(f"{STYLES} styles, batches of {BATCH}, chunks of {INPUTS} inputs, {chunks} chunks; seconds of a batch fixed")
    say("| workers | s a batch | pictures/s | of what workers could | driver busy | planning, taking in, committing |")
    say("|---|---|---|---|---|---|")
    for seconds in (BATCH_SECONDS, BATCH_SECONDS / 4, BATCH_SECONDS / 16, BATCH_SECONDS / 64):
        with tempfile.TemporaryDirectory() as folder:
            rate, driver, elapsed = simulate(folder, NODES, chunks, seconds)
        parts = ", ".join(f"{driver.busy[kind] / driver.busy.total():.0%}" for kind in ("plan", "take", "commit"))
        say(
            f"| {NODES} | {seconds:.4f} | {rate:,.0f} | {rate * seconds / BATCH / NODES:.0%} "
            f"| {driver.busy.total() / elapsed:.0%} | {parts} |"
        )


def simulate(folder: str, workers: int, number: int, seconds: float) -> tuple[float, Driver, float]:
    """(pictures a second, the driver, simulated seconds)."""
    variants = tuple(Variant(f"style-{i}", 1, params_hash="p") for i in range(STYLES))
    manifest, tally, driver = Manifest(Storage.open(folder)), Tally(), Driver()
    record = Record(manifest, variants, run_id="run", seed=0)
    items = (Item(f"s3://bucket/photographs/{i:09d}.jpg", f"{i:09d}.jpg", "") for i in range(number * INPUTS))
    planned = enumerate(chunks(Plan(manifest, variants, False)(items, tally, unique=True), INPUTS, workers))
    under_way, numbers = _UnderWay(), count()
    ready: list[tuple[float, Chunk]] = []  # when it is there, and the chunk
    events: list[tuple[float, int, str, Row]] = []  # when, order, worker, its results
    idle = {f"node-{i}": 0.0 for i in range(workers)}
    now = 0.0

    def plan() -> None:
        start = time.process_time()
        if following := next(planned, None):
            chunk = Chunk(*following)
            under_way.add(chunk)
            ready.append((driver.work("plan", now, start), chunk))

    for _ in range(CHUNKS_AHEAD * workers):
        plan()
    pictures = 0
    while True:
        while ready and idle:
            there, chunk = ready.pop(0)
            worker, since = idle.popitem()
            begun = max(there, since)
            for n, row in enumerate(_results(chunk, worker), 1):
                heapq.heappush(events, (begun + n * seconds, next(numbers), worker, row))
        if not events:
            return pictures / now, driver, now
        at, _, worker, row = heapq.heappop(events)
        table = one_row(row, finished_schema())
        start = time.process_time()
        (taken,) = table.to_pylist()
        outcomes = under_way.take(taken)
        through = driver.work("take", at, start)
        start = time.process_time()
        record.add(worker, outcomes)
        now = driver.work("commit", through, start)
        pictures += len(outcomes)
        if under_way.is_finished(row["chunk"]):
            idle[worker] = at
            plan()


def _results(chunk: Chunk, worker: str) -> Iterator[Row]:
    for label in chunk.inputs[0]["missing"]:
        for first in range(0, len(chunk.inputs), BATCH):
            outcomes = [
                {
                    "input_uri": row["input_uri"], "key": row["key"], "input_sha256": "0" * 64, "width": 1024,
                    "height": 768, "transform": '{"mode": "crop"}', "status": "done", "seconds": 0.01,
                    "variant": label, "output_uri": f"s3://bucket/out/images/{label}/{row['key']}.png",
                    "output_sha256": "0" * 64,
                }
                for row in chunk.inputs[first : first + BATCH]
            ]  # fmt: skip
            spent = {field.name: 0.0 for field in SPENT}
            yield {"chunk": chunk.number, "worker": worker, "outcomes": outcomes, "spent": spent}
