"""A worker's whole path beside the bare loop over the same batches, both in this process and one thread of torch.

The path: listing, planning, reading, decoding, encoding, stylizing, PNG, checksum, files, manifest. The loop has the
pixels and leaves tensors.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.stylize_parts.studio import SAMPLES
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.planning import Tally
from jobs.streaming.run import run
from jobs.streaming.stylizing import Stylizer
from jobs.stylize import stages
from osasis.base import bundled_bases, load_base
from osasis.image import decode_image, fit, to_tensor
from osasis.method import pictures_of
from osasis.settings import Quality, StylizeConfig
from osasis.strength import no_style
from tests.support.in_process import InProcess

BATCH = 4
Clocks = tuple[float, float]
"""Of the processor, of the wall."""


def clocks() -> Clocks:
    return time.process_time(), time.monotonic()


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
            bare = bare_loop(inputs, StylizeConfig(quality=quality))
            whole, waited = whole_path(Path(folder), quality)
        rates = ", ".join(f"{a / b:.1%}" for a, b in zip(bare, whole, strict=True))
        say(f"| {quality} | {bare[0]:.1f}, {bare[1]:.1f} | {whole[0]:.1f}, {whole[1]:.1f} | {rates} | {waited:.1%} |")


def bare_loop(inputs: Path, config: StylizeConfig) -> Clocks:
    torch.set_num_threads(1)
    base = load_base(bundled_bases()["mini64"], "cpu")
    images = torch.stack([to_tensor(fit(decode_image(p.read_bytes()), base.image_size)[0]) for p in inputs.iterdir()])
    config = config.model_copy(update={"style_strength": 0.0})
    with torch.inference_mode():
        pictures_of(base, no_style(base), images[:BATCH], config)  # so that neither is measured cold
        start = clocks()
        for batch in images.split(BATCH):
            pictures_of(base, no_style(base), batch, config)
    return _since(start)


def whole_path(folder: Path, quality: Quality) -> tuple[Clocks, float]:
    """(times from the moment that the base is loaded, share of the wall between chunks)."""
    begun: list[Clocks] = []
    executions: list[Any] = []

    class Ready(Stylizer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            begun.append(clocks())

    @contextmanager
    def execute(*args: Any) -> Iterator[InProcess]:
        executions.append(InProcess(args[0], args[1], Ready))
        yield executions[0]

    place = {"storage": str(folder / "catalog"), "input": str(folder / "in"), "output": str(folder / "out")}
    job = resolve(StylizeFlags.model_validate(place | {"styles": "none", "quality": quality, "batch_size": BATCH}))
    run(stages(job, "run"), job.flags, Tally(), execute)
    took, spent = _since(begun[0]), executions[0].spent
    return took, (spent.seconds["pictures"] + spent.seconds["driver"]) / took[1]


def _since(start: Clocks) -> Clocks:
    now = clocks()
    return now[0] - start[0], now[1] - start[1]
