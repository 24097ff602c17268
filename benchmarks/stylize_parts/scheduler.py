"""The scheduler on Ray: many styles and pictures on the tiny base, with a device stage of fixed time per batch.

Two workers do the whole job (listing, reading, decoding, loading styles, writing, recording); only the computing is a
pause, so that a device's idle share is what the rest of the pipeline costs it.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster.storage import Storage
from jobs.streaming.encoding import Batch
from jobs.streaming.execution import Execution
from jobs.streaming.ledger import Ledger
from jobs.streaming.rows import Row
from jobs.streaming.spent import Spent
from jobs.streaming.stylizing import Painted, Stylizer, StylizerTask
from jobs.streaming.variants import Variant
from osasis.image import to_levels
from tests.support.stylize_case import Case

BATCH, BATCH_SECONDS = 32, 0.1


class PausingStylizer(Stylizer):
    """Stylizes nothing; leaves a file for each style that it loads."""

    def __init__(self, task: StylizerTask, ledger: Ledger) -> None:
        super().__init__(task, ledger)
        load = self.styles._load

        def counted(variant: Variant) -> Any:
            name = f"loads/{self._name}/{time.monotonic_ns()}".replace("/", "-")
            self.task.write.output.write_bytes(name, b"")
            return load(variant)

        self.styles._load = counted  # type: ignore[method-assign]

    def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
        self.styles.take(variant)
        time.sleep(BATCH_SECONDS)
        pixels = to_levels(batch.all_images[list(batch.chosen)]).movedim(1, -1).numpy()
        return [Painted(part, (), {}) for part in pixels]

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        """Storage is not what is measured."""
        return {"output_uri": f"memory://{variant.label}/{row['key']}", "output_sha256": ""}


def measure(styles: int, pictures: int, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = Case.make(Storage.open(Path(folder) / "root"), Path(folder), styles=styles)
        case.add_pictures(pictures)
        seen: list[Spent] = []
        made = Execution.__init__

        def remembering(self: Execution, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            seen.append(self.spent)

        start = time.monotonic()
        with patch.object(Execution, "__init__", remembering):
            tally = case.run(PausingStylizer, batch_size=BATCH, workers=2)
        seconds = time.monotonic() - start
        (spent,) = seen
        names = [name for name in case.root.child("out").list_files() if name.startswith("loads-")]
    loads = {worker: sum(name.startswith(worker) for name in names) for worker in {n.rpartition("-")[0] for n in names}}
    shares = ", ".join(f"{kind} {took / spent.seconds.total():.1%}" for kind, took in spent.seconds.most_common())
    device = styles * -(-pictures // BATCH) * BATCH_SECONDS
    say(f"{styles} styles × {pictures} pictures, 2 workers, {BATCH_SECONDS} s a batch of {BATCH}: {tally.now.total()} "
        f"outcomes in {seconds:.0f} s, {device / 2:.0f} s of them each device's; loads by worker "
        f"{sorted(loads.values())}; workers' time: {shares}")  # fmt: skip
