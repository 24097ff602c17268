"""Windows of inputs through a pipeline into a manifest: what every streaming job does, whatever its work."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from catalog.manifest import Manifest
from cluster.runtime.resources import Resources, capacity
from jobs.streaming.flags import StreamFlags
from jobs.streaming.inputs import Source, windows
from jobs.streaming.outstanding import Tally, outstanding
from jobs.streaming.pipeline import PREPARE_CPUS, Pipeline, Pool
from jobs.streaming.progress import ProgressLine
from jobs.streaming.recorder import Recorder
from jobs.streaming.variants import Variant

WINDOW_PAIRS = 50_000
"""(Input, variant) pairs planned and executed at once: bounds the driver's memory, whatever the number of inputs."""


def stream(
    source: Source,
    variants: Sequence[Variant],
    manifest: Manifest,
    recorder: Recorder,
    tally: Tally,
    flags: StreamFlags,
    connected: Callable[[], AbstractContextManager[Pipeline]],
    window_pairs: int = WINDOW_PAIRS,
) -> None:
    """Do what is missing, committing as it goes; ``connected`` is entered only if something is."""
    tally.now = recorder.counts
    with ExitStack() as stack:
        running: tuple[Pipeline, ProgressLine] | None = None
        for items in windows(source, max(1, window_pairs // len(variants)), flags.limit):
            work = outstanding(items, variants, manifest, tally, retry_failed=flags.retry_failed)
            if not work:
                continue
            if running is None:
                running = stack.enter_context(connected()), stack.enter_context(ProgressLine())
            pipeline, line = running
            try:
                for rows in pipeline.run(work):
                    recorder.add(rows)
                    line.update(recorder.seen)
            finally:
                recorder.flush()  # whatever ends the run, what is finished stays finished
    tally.check(len(variants))
    if running is not None:
        manifest.compact()


def pool(flags: StreamFlags) -> Pool:
    """As many workers as were asked for, or as the connected cluster holds."""
    fitting = capacity(Resources(flags.cpus_per_worker + PREPARE_CPUS, flags.gpus_per_worker))
    return Pool(min(flags.workers or fitting, fitting), flags.cpus_per_worker, flags.gpus_per_worker)
