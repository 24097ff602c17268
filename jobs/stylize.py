"""Stylizes photographs: streams them from storage through encode and every selected style, and back to storage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.manifest import Manifest
from catalog.store import UnknownStyle
from cluster.commandline.cli import ExitCode, parse_flags, run_job
from cluster.runtime.connection import connect
from cluster.runtime.run_record import run_record
from cluster.storage.cache import default_cache_dir
from jobs.streaming.outstanding import Tally
from jobs.streaming.pipeline import Pipeline
from jobs.streaming.plan import Plan, StylizeFlags, make_plan
from jobs.streaming.prepare import Prepare
from jobs.streaming.recorder import Recorder
from jobs.streaming.stream import WINDOW_PAIRS, pool, stream
from jobs.streaming.stylizer import Stylizer, StylizerTask


def stylize(
    plan: Plan,
    run_id: str,
    tally: Tally,
    *,
    worker: type[Stylizer] = Stylizer,
    window_pairs: int = WINDOW_PAIRS,
) -> None:
    """Do what is missing, committing as it goes; Ray is connected only if something is. Keeps ``tally`` up to date."""
    manifest, flags = Manifest(plan.output), plan.flags
    recorder = Recorder(manifest, plan.variants, run_id=run_id, seed=flags.seed, replacing=flags.retry_failed)
    stream(plan.source, plan.variants, manifest, recorder, tally, flags, lambda: _pipeline(plan, worker), window_pairs)


@contextmanager
def _pipeline(plan: Plan, worker: type[Stylizer]) -> Iterator[Pipeline]:
    """Connect to Ray and size the pool by what is there."""
    flags = plan.flags
    with connect():
        task = StylizerTask(
            base_location=plan.base_location,
            variants=plan.variants,
            config=flags.config(),
            text=flags.text_config(),
            output=plan.output,
            cache_dir=default_cache_dir(),
            batch_size=flags.batch_size,
            threads=flags.threads,
            device=flags.device,
        )
        prepare = Prepare(plan.source, plan.image_size, flags.fit, flags.max_pixels)
        yield Pipeline(prepare, task, pool(flags), worker)


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


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(UnknownStyle,))


if __name__ == "__main__":
    command()
