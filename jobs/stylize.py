"""Stylizes photographs: streams them from storage through encode and every selected style, and back to storage."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.store import UnknownStyle
from cluster.cache import default_cache_dir
from cluster.cli import ExitCode, parse_flags, run_job
from cluster.connection import connect
from cluster.resources import Ask, capacity
from cluster.run_record import run_record
from jobs.stages.inputs import windows
from jobs.stages.manifest import Manifest
from jobs.stages.outstanding import Tally, outstanding
from jobs.stages.pipeline import PREPARE_CPUS, Pipeline, Pool
from jobs.stages.plan import Plan, StylizeFlags, make_plan
from jobs.stages.prepare import Prepare
from jobs.stages.progress import ProgressLine
from jobs.stages.recorder import Recorder
from jobs.stages.stylizer import Stylizer, StylizerTask

WINDOW_PAIRS = 50_000
"""(Input, variant) pairs planned and executed at once: bounds the driver's memory, whatever the number of inputs."""


def stylize(
    plan: Plan,
    run_id: str,
    tally: Tally,
    *,
    worker: type[Stylizer] = Stylizer,
    window_pairs: int = WINDOW_PAIRS,
) -> None:
    """Do what is missing, committing as it goes; Ray is connected only if something is. Keeps ``tally`` up to date."""
    manifest = Manifest(plan.output)
    recorder = Recorder(manifest, plan.variants, run_id=run_id, seed=plan.flags.seed, replacing=plan.flags.retry_failed)
    tally.now = recorder.counts
    with ExitStack() as stack:
        running: tuple[Pipeline, ProgressLine] | None = None
        for items in windows(plan.source, max(1, window_pairs // len(plan.variants)), plan.flags.limit):
            work = outstanding(items, plan.variants, manifest, tally, retry_failed=plan.flags.retry_failed)
            if not work:
                continue
            if running is None:
                running = stack.enter_context(_pipeline(plan, worker)), stack.enter_context(ProgressLine())
            pipeline, line = running
            try:
                for rows in pipeline.run(work):
                    recorder.add(rows)
                    line.update(recorder.seen)
            finally:
                recorder.flush()  # whatever ends the run, what is finished stays finished
    tally.check(len(plan.variants))
    if running is not None:
        manifest.compact()


@contextmanager
def _pipeline(plan: Plan, worker: type[Stylizer]) -> Iterator[Pipeline]:
    """Connect to Ray and size the pool by what is there."""
    flags = plan.flags
    with connect():
        fitting = capacity(Ask(flags.cpus_per_worker + PREPARE_CPUS, flags.gpus_per_worker))
        task = StylizerTask(
            base_location=plan.base_location,
            variants=plan.variants,
            config=flags.config(),
            text=flags.text_config(),
            output=plan.output,
            cache_dir=default_cache_dir(),
            batch_size=flags.batch_size,
            threads=max(1, round(flags.cpus_per_worker)),
            device="cuda" if flags.gpus_per_worker else "cpu",
        )
        yield Pipeline(
            Prepare(plan.source, plan.image_size, flags.fit, flags.max_pixels),
            task,
            Pool(min(flags.workers or fitting, fitting), flags.cpus_per_worker, flags.gpus_per_worker),
            worker,
        )


def describe(plan: Plan) -> Table:
    """The resolved plan, for people."""
    flags, table = plan.flags, Table(show_header=False, box=None)
    for name, value in {
        "input": flags.input,
        "styles": ", ".join(dict.fromkeys(variant.style for variant in plan.variants)),
        "text": ", ".join(map(repr, flags.text)),
        "base": f"{plan.base_name} ({plan.image_size} pixels), {plan.base_location}",
        "fit": flags.fit,
        "method": ", ".join(f"{name}={value}" for name, value in flags.config()),
        "text method": ", ".join(f"{name}={value}" for name, value in flags.text_config()) if flags.text else "",
        "output": f"{plan.output.uri}/images, {plan.output.uri}/manifest",
        "parameters": ", ".join(dict.fromkeys(variant.params_hash for variant in plan.variants)),
        "warnings": "; ".join(plan.warnings),
    }.items():
        if value:
            table.add_row(f"[bold]{name}[/bold]", escape(value))
    return table


def main() -> ExitCode:
    """Read flags, check, print the plan, run, write the record."""
    flags = parse_flags(StylizeFlags)
    console = Console()
    plan = make_plan(flags)
    console.print(describe(plan))
    if flags.dry_run:
        return ExitCode.DONE
    start = time.monotonic()
    with run_record(plan.storage, job="stylize", config=flags) as record:
        tally = Tally()
        try:
            with record.timed("stylize"):
                stylize(plan, record.run_id, tally)
        finally:
            record.counts.update(tally.counts())
    new = tally.now.total()
    console.print(
        f"{record.counts['done']} done, {record.counts['rejected']} rejected, {record.counts['failed']} failed"
        f" of {tally.inputs} inputs in {len(plan.variants)} styles; "
        + (f"{new} of them now, in {time.monotonic() - start:.0f} s" if new else "everything was already decided"),
        highlight=False,
    )
    if record.exit_code == ExitCode.RECORDED_FAILURES:
        console.print(f"reasons: columns error_type and error of {plan.output.uri}/manifest", highlight=False)
    return record.exit_code


if __name__ == "__main__":
    run_job(main, expected=(UnknownStyle,))
