"""The scheduler on Ray: many styles and pictures on the tiny base, with a device stage of fixed time per batch.

Two workers do the whole job (listing, reading, decoding, loading styles, recording); only computing is a pause, and
nothing is stored, so that a device's idle share is what the rest of the pipeline costs it.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster.storage import Storage
from jobs.streaming.encoding import Batch
from jobs.streaming.execution import Execution
from jobs.streaming.ledger import Ledger
from jobs.streaming.rows import Row
from jobs.streaming.stylizing import Painted, Stylizer, StylizerTask
from jobs.streaming.variants import Variant
from osasis.image import to_levels
from tests.support.stylize_case import Case

WORKERS, BATCH, BATCH_SECONDS = 2, 32, 0.2


class PausingStylizer(Stylizer):
    """Computes nothing; leaves an empty file for each style that it loads and each batch, named by its pause."""

    def __init__(self, task: StylizerTask, ledger: Ledger) -> None:
        super().__init__(task, ledger)
        load, self._told = self.styles._load, 0

        def counted(variant: Variant) -> Any:
            self._tell("load")
            return load(variant)

        self.styles._load = counted  # type: ignore[method-assign]

    def _tell(self, kind: str) -> None:
        self._told += 1
        self.task.write.output.write_bytes(f"told/{kind} {self._name.replace('/', '-')} {self._told}", b"")

    def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
        style = self.styles.take(variant)
        pixels = to_levels(batch.all_images[list(batch.chosen)]).movedim(1, -1).numpy()
        start = time.monotonic()
        time.sleep(BATCH_SECONDS)
        self._tell(f"{time.monotonic() - start:.4f}")
        return [Painted(part, style.header.texture, {}) for part in pixels]

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        return {"output_uri": f"memory://{variant.label}/{row['key']}", "output_sha256": ""}


def measure(styles: int, pictures: int, say: Callable[[str], None]) -> None:
    say(f"{WORKERS} workers, {BATCH_SECONDS} s a batch of {BATCH}, base tiny")
    say("| styles × pictures | outcomes | wall, s | loads by worker | device busy: of the wall, of workers' time "
        "| workers' time |")  # fmt: skip
    say("|---|---|---|---|---|---|")
    made: list[Execution] = []
    init = Execution.__init__

    def remembered(self: Execution, *args: Any) -> None:
        init(self, *args)
        made.append(self)

    with tempfile.TemporaryDirectory() as folder, patch.object(Execution, "__init__", remembered):
        case = Case.make(Storage.open(Path(folder) / "root"), Path(folder), styles=styles)
        case.add_pictures(pictures)
        start = time.monotonic()
        tally = case.run(PausingStylizer, batch_size=BATCH, workers=WORKERS)
        wall = time.monotonic() - start
        told = [name.split() for name in case.root.child("out", "told").list_files()]
    loads = Counter(worker for kind, worker, _ in told if kind == "load")
    paused = sum(float(kind) for kind, *_ in told if kind != "load")
    seconds = made[0].spent.seconds
    shares = ", ".join(f"{kind} {took / seconds.total():.1%}" for kind, took in seconds.most_common())
    say(f"| {styles} × {pictures:,} | {tally.now.total():,} | {wall:.0f} | {sorted(loads.values())} "
        f"| {paused / WORKERS / wall:.1%}, {paused / seconds.total():.1%} | {shares} |")  # fmt: skip
