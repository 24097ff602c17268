"""Stylizes photographs: streams them from storage through encode and every selected style, and back to storage."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.manifest import Manifest
from catalog.output_names import PACKED
from catalog.store import UnknownStyle
from cluster.commandline.cli import ExitCode, parse_flags, run_job
from cluster.runtime.lease import LeaseHeld, LeaseLost
from cluster.runtime.outlook import foreseen
from cluster.runtime.run_record import run_record
from jobs.streaming.command import StylizeFlags, StylizeJob, resolve
from jobs.streaming.costs import SECONDS_PER_PAIR, missing, seconds_per_pair
from jobs.streaming.costs import in_words as in_cost
from jobs.streaming.decoding import Decode
from jobs.streaming.exclusive import exclusive
from jobs.streaming.execution import DECODE_CPUS
from jobs.streaming.failures import RunStopped
from jobs.streaming.listing import in_words
from jobs.streaming.packing import swept
from jobs.streaming.planning import Plan, Tally
from jobs.streaming.recording import Record
from jobs.streaming.run import Stages, run
from jobs.streaming.stylizing import Stylize, Stylizer, StylizerTask
from jobs.streaming.writing import Write


def stages(job: StylizeJob, run_id: str, before_commit: Callable[[], None] = lambda: None) -> Stages:
    """What happens to a photograph, in order; each stage says in its file what it takes, gives and needs."""
    flags, manifest = job.flags, Manifest(job.output)
    return Stages(
        list=job.source,
        plan=Plan(manifest, job.variants, flags.retry_failed),
        decode=Decode(job.source, job.image_size, flags.fit, flags.max_pixels),
        task=StylizerTask(
            variants=job.variants,
            encode=flags.encode(job.base_location, flags.precision),
            stylize=Stylize(flags.config(), flags.text_config()),
            write=Write(
                job.output,
                job.source,
                flags.max_pixels,
                flags.output_config(),
                flags.style_strength,
                hashed=flags.output_folders == "hashed",
                packed=flags.pack is not None,
            ),
            scores=flags.scores,
            keep=flags.keep(),
            pack=flags.packing(job.output, run_id),
        ),
        worker=Stylizer,
        record=Record(
            manifest,
            job.variants,
            run_id=run_id,
            seed=flags.seed,
            retrying=flags.retry_failed,
            flags=flags.conditions(),
            before_commit=before_commit,
        ),
    )


def describe(job: StylizeJob, **more: str) -> Table:
    """The resolved command, for people, with ``more`` that is known of it."""
    flags, table = job.flags, Table(show_header=False, box=None)
    for name, value in {
        "input": flags.input,
        "styles": ", ".join(dict.fromkeys(variant.style for variant in job.variants)),
        "text": ", ".join(map(repr, flags.text)),
        "base": f"{job.base_name} ({job.image_size} pixels), {job.base_location}",
        "fit": flags.fit,
        "method": ", ".join(f"{name}={value}" for name, value in flags.config()),
        "text method": ", ".join(f"{name}={value}" for name, value in flags.text_config()) if flags.text else "",
        "pictures": ", ".join(f"{name}={value}" for name, value in flags.output_config().described().items()),
        "output": f"{job.output.uri}/{PACKED if flags.pack else 'images'}, {job.output.uri}/manifest",
        **more,
        "parameters": ", ".join(dict.fromkeys(variant.params_hash for variant in job.variants)),
        "warnings": "; ".join(job.warnings),
    }.items():
        if value:
            table.add_row(f"[bold]{name}[/bold]", escape(value))
    return table


def write_origins(job: StylizeJob) -> None:
    """Licence and provenance of each style, ``styles/ID@VERSION.json``: they go where the pictures go."""
    for version in job.versions:
        name = f"styles/{version}.json"
        if not job.output.exists(name):
            job.output.write_bytes(name, version.model_dump_json(indent=2).encode())


def foreseen_costs(job: StylizeJob) -> dict[str, str]:
    """What the command would do and what that takes; reads the listing and the manifest."""
    flags = job.flags
    pairs, tally = missing(stages(job, "dry-run"), flags.limit)
    measured = seconds_per_pair(job.records, "stylize", flags.model_dump(mode="json"))
    resources, room = foreseen(flags, DECODE_CPUS)
    return {
        "room for": room,
        "found": f"{tally.inputs:,} inputs, {tally.before.total():,} pairs decided before",
        "to do": in_cost(pairs, measured, resources.gpus),
    }


def main() -> ExitCode:
    """Read flags, check, print the plan, run, write the record."""
    flags = parse_flags(StylizeFlags, further=resolve)
    console = Console()
    job = resolve(flags)
    if flags.dry_run:
        console.print(describe(job, **foreseen_costs(job)))
        return ExitCode.DONE
    console.print(describe(job))
    start = time.monotonic()
    with run_record(job.records, job="stylize", config=flags) as record:
        tally = Tally()
        try:
            with (
                exclusive(job.output, Manifest(job.output), job.variants, record, flags.if_busy) as held,
                swept(job.output, Manifest(job.output), record.run_id, job.labels if flags.pack else ()),
                record.timed("stylize"),
            ):
                write_origins(job)
                staged = stages(job, record.run_id, held.check)
                run(staged, flags, tally)
                if decided := staged.record.seen.total():
                    record.metrics[SECONDS_PER_PAIR] = staged.record.seconds / decided
        finally:
            record.counts.update(tally.counts())
    new = tally.now.total()
    console.print(
        f"{record.counts['done']} done, {record.counts['rejected']} rejected, {record.counts['failed']} failed"
        f" of {tally.inputs} inputs in {len(job.variants)} styles; "
        + (f"{new} of them now, in {time.monotonic() - start:.0f} s" if new else "everything was already decided"),
        highlight=False,
    )
    if tally.flagged:
        console.print(f"{tally.flagged} marked: column flags of {job.output.uri}/manifest", highlight=False)
    if tally.passed_over:
        console.print(f"passed over: {in_words(tally.passed_over)}", highlight=False, markup=False)
    if record.exit_code == ExitCode.RECORDED_FAILURES:
        console.print(f"reasons: columns error_type and error of {job.output.uri}/manifest", highlight=False)
    return record.exit_code


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(UnknownStyle, RunStopped, LeaseHeld, LeaseLost))


if __name__ == "__main__":
    command()
