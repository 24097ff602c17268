"""A worker's whole path beside the bare loop over the same batches, in one process and one thread of torch.

The path: listing, planning, reading, decoding, encoding, stylizing, PNG, checksum, files, manifest. The loop has the
pixels and leaves tensors. They take turns batch by batch, now the one first and now the other, since the speed of a
machine that others use too drifts by more than what is sought.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.stylize_parts.studio import SAMPLES
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.encoding import Batch
from jobs.streaming.planning import Tally
from jobs.streaming.run import run
from jobs.streaming.spent import Clock
from jobs.streaming.stylizing import Stylizer
from jobs.streaming.variants import Variant
from jobs.stylize import stages
from osasis.checkpoint import Style
from osasis.method import pictures_of
from osasis.settings import Quality
from osasis.strength import no_style
from tests.support.in_process import InProcess

BATCH = 4


@dataclass
class Clocks:
    """Seconds of the processor and of the wall."""

    processor: float = 0.0
    wall: float = 0.0


def measure(pictures: int, qualities: Sequence[Quality], say: Callable[[str], None]) -> None:
    say(f"{pictures} photographs, the base mini64 alone, batches of {BATCH}")
    say("| quality | bare loop: processor, wall, s | whole path | rate of the path: processor, wall | between chunks |")
    say("|---|---|---|---|---|")
    for quality in qualities:
        with tempfile.TemporaryDirectory() as folder:
            inputs = Path(folder) / "in"
            inputs.mkdir()
            for path in sorted((SAMPLES / "portraits").iterdir())[:pictures]:
                shutil.copy(path, inputs)
            bare, whole, waited = take_turns(Path(folder), quality)
        rates = f"{bare.processor / whole.processor:.1%}, {bare.wall / whole.wall:.1%}"
        times = f"{bare.processor:.1f}, {bare.wall:.1f} | {whole.processor:.1f}, {whole.wall:.1f}"
        say(f"| {quality} | {times} | {rates} | {waited / whole.wall:.1%} |")


def take_turns(folder: Path, quality: Quality) -> tuple[Clocks, Clocks, float]:
    """(the bare loop's, the path's from the moment that the base is loaded, seconds between chunks)."""
    bare, begun = Clocks(), Clocks()
    executions: list[Any] = []

    class Both(Stylizer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.turn = 0
            self.compute_bare(
                no_style(self.base), torch.zeros(BATCH, 3, *[self.base.image_size] * 2)
            )  # the first is slow
            bare.processor = bare.wall = 0.0
            begun.processor, begun.wall = time.process_time(), time.monotonic()
            self.clock = Clock()

        def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
            self.turn += 1
            if self.turn % 2:
                self.compute_bare(self.styles.take(variant), batch.all_images)
            results = super().results(variant, batch)
            if not self.turn % 2:
                self.compute_bare(self.styles.take(variant), batch.all_images)
            return results

        @torch.inference_mode()
        def compute_bare(self, style: Style, images: torch.Tensor) -> None:
            processor, wall = time.thread_time(), time.monotonic()
            pictures_of(self.base, style, images, self.task.stylize.config)
            bare.processor += time.thread_time() - processor
            bare.wall += time.monotonic() - wall

    @contextmanager
    def execute(*args: Any) -> Iterator[InProcess]:
        executions.append(InProcess(args[0], args[1], Both))
        yield executions[0]

    place = {"storage": str(folder / "catalog"), "input": str(folder / "in"), "output": str(folder / "out")}
    job = resolve(StylizeFlags.model_validate(place | {"styles": "none", "quality": quality, "batch_size": BATCH}))
    run(stages(job, "run"), job.flags, Tally(), execute)
    processor, wall = time.process_time() - begun.processor, time.monotonic() - begun.wall
    seconds = executions[0].spent.seconds
    return bare, Clocks(processor - bare.processor, wall - bare.wall), seconds["pictures"] + seconds["driver"]
