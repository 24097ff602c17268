"""Measures styles on photographs as the paper does, beside other methods, and writes a report."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from catalog.store import UnknownStyle
from cluster.commandline.cli import ExitCode, parse_flags, run_job
from cluster.runtime.lease import LeaseHeld, LeaseLost
from cluster.runtime.outlook import foreseen
from cluster.runtime.run_record import RunRecord, run_record
from cluster.storage import StorageError
from jobs.evaluating.command import EvaluateFlags, EvaluateJob, groups_of, resolve, with_recipe
from jobs.evaluating.measuring import Evaluator, EvaluatorTask
from jobs.evaluating.report import number
from jobs.evaluating.reporting import CSV, MARKDOWN, PAGE, Evaluated, evaluated, record_results, write_report
from jobs.evaluating.state import TABLE, PairsTable
from jobs.streaming.decoding import Decode
from jobs.streaming.exclusive import exclusive
from jobs.streaming.execution import DECODE_CPUS
from jobs.streaming.failures import RunStopped
from jobs.streaming.listing import in_words
from jobs.streaming.planning import Plan, Tally
from jobs.streaming.recording import COMMIT_SECONDS, Record
from jobs.streaming.run import Stages, run

LARGE_COMMIT_SECONDS = 120.0
"""Between commits where a network with large features measures, whose state takes a while to write."""

console = Console(highlight=False, soft_wrap=True)


def stages(
    job: EvaluateJob, table: PairsTable, run_id: str, before_commit: Callable[[], None] = lambda: None
) -> Stages:
    """What happens to a photograph, in order."""
    flags = job.flags
    return Stages(
        list=job.source,
        plan=Plan(table, job.variants, flags.retry_failed),
        decode=Decode(job.source, job.base.image_size, flags.fit, flags.max_pixels),
        task=EvaluatorTask(
            variants=job.variants,
            encode=flags.encode(job.base_location, flags.precision),
            networks=flags.networks,
            references=job.references,
            fit=flags.fit,
            max_pixels=flags.max_pixels,
        ),
        worker=Evaluator,
        record=Record(
            table,
            job.variants,
            run_id=run_id,
            seed=flags.seed,
            retrying=flags.retry_failed,
            before_commit=before_commit,
            commit_seconds=LARGE_COMMIT_SECONDS if "inception" in job.metrics.networks else COMMIT_SECONDS,
        ),
    )


def describe(job: EvaluateJob) -> Table:
    """The resolved command, for people."""
    table = Table(show_header=False, box=None)
    for name, value in {
        "content": job.flags.content + (f", density {job.flags.density}" if job.flags.density else ""),
        "styles": ", ".join(map(str, job.styles)),
        "methods": "; ".join(group.name for group in groups_of(job.variants)),
        "base": f"{job.base.name} ({job.base.image_size} pixels), {job.base_location}",
        **job.metrics.described(job.base.name),
        "output": f"{job.output.child_uri(TABLE)}, {PAGE}, {MARKDOWN}, {CSV}",
    }.items():
        table.add_row(f"[bold]{name}[/bold]", value.replace("[", r"\["))
    return table


def main() -> ExitCode:
    """Read flags, check, print the plan, measure, report."""
    flags, recipe = with_recipe(parse_flags(EvaluateFlags))
    job = resolve(flags, recipe)
    console.print(describe(job))
    if flags.dry_run:
        console.print(f"room for {foreseen(flags, DECODE_CPUS)[1]}", markup=False)
        return ExitCode.DONE
    with run_record(job.output, job="evaluate", config=flags) as record:
        tally = Tally()
        try:
            table = job.table
            with exclusive(job.output, table, [], record, flags.if_busy) as held:
                with record.timed("measure"):
                    run(stages(job, table, record.run_id, held.check), flags, tally)
                with record.timed("report"):
                    result = evaluated(job)
                    write_report(job, result)
        finally:
            record.counts.update(tally.counts())
        if not flags.leave_catalog:
            _to_catalog(job, result, record)
    console.print(_figures(job, result))
    done, rejected, failed = (record.counts[status] for status in ("done", "rejected", "failed"))
    console.print(f"{done} pairs measured, {rejected} rejected, {failed} failed of {tally.inputs} photographs")
    if tally.passed_over:
        console.print(f"passed over: {in_words(tally.passed_over)}", markup=False)
    console.print(f"report: {job.output.child_uri(PAGE)}", markup=False)
    return record.exit_code


def _to_catalog(job: EvaluateJob, result: Evaluated, record: RunRecord) -> None:
    """A catalog that may only be read keeps the evaluation from nothing."""
    try:
        record_results(job, result, record.run_id)
    except StorageError as error:
        console.print(f"the catalog gets no figures: {error}", markup=False)


def _figures(job: EvaluateJob, result: Evaluated) -> Table:
    title = "Measured by stand-ins of the base" if job.metrics.stand_ins else "Measured"
    names = list(result.figures.overall[0].figures) if result.figures.overall else []
    table = Table("method", "pairs", *names, title=title)
    for row in result.figures.overall:
        table.add_row(
            row.group.name, str(row.pairs), *(number(row.figures[n].value) if n in row.figures else "–" for n in names)
        )
    return table


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(UnknownStyle, RunStopped, LeaseHeld, LeaseLost))


if __name__ == "__main__":
    command()
