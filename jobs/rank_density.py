"""Ranks pictures by how usual they are to a base: the paper's low- and high-density selection."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from rich.console import Console

from catalog.manifest import Manifest
from catalog.output_names import NO_STYLE
from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, Problem, Uri, parse_flags, run_job
from cluster.commandline.problems import Problems
from cluster.runtime.lease import LeaseHeld, LeaseLost
from cluster.runtime.outlook import foreseen
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from jobs.shared.bases import DEFAULT_BASE, describe_base
from jobs.streaming.command import occupied
from jobs.streaming.decoding import Decode
from jobs.streaming.exclusive import exclusive
from jobs.streaming.execution import DECODE_CPUS
from jobs.streaming.failures import RunStopped
from jobs.streaming.flags import StreamFlags
from jobs.streaming.listing import Source, in_words, open_source
from jobs.streaming.planning import Plan, Tally
from jobs.streaming.ranking import DENSITY_SCHEMA, Ranker, RankerTask
from jobs.streaming.recording import Record
from jobs.streaming.run import Stages, run
from jobs.streaming.variants import Variant
from osasis.base import BaseSpec, fingerprint
from osasis.errors import OsasisError
from osasis.settings import DensityConfig

TABLE, LOW, HIGH = "density", "low.txt", "high.txt"
"""Below --output: a Delta table with a row per input, and URIs of the least and the most usual inputs, one a line."""

console = Console(highlight=False, soft_wrap=True)


class ListsFlags(JobFlags):
    """By which base, and how many are listed."""

    base: Uri = Field(DEFAULT_BASE, description="Base: bundled name or URI.")
    count: int = Field(100, gt=0, description="Pictures on each list.")


class RankFlags(ListsFlags, StreamFlags, DensityConfig):  # type: ignore[misc]  # both name their model_config; the first counts
    """Rank pictures by density under a base: how well stochastic reconstructions (the same z_sem, fresh noise) match.

    Writes a table under --output, and lists of the --count pictures with the largest distance (low.txt: low density)
    and the smallest (high.txt). Running the same command again does only what is missing.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--input photos --output density",
        "--input s3://bucket/photos --output s3://bucket/density --base s3://bucket/bases/faces64",
    )

    def config(self) -> DensityConfig:
        """The method's part."""
        return DensityConfig(**self.model_dump(include=set(DensityConfig.model_fields)))


@dataclass(frozen=True)
class RankJob:
    """Everything resolved: what is read, by which base, and where the figures go."""

    flags: RankFlags
    source: Source
    output: Storage
    base_location: str
    base: BaseSpec
    variant: Variant

    @property
    def table(self) -> Manifest:
        return Manifest(self.output, TABLE, DENSITY_SCHEMA)


def resolve(flags: RankFlags) -> RankJob:
    """Resolve ``flags``, reading but writing nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(OsasisError)
    attempt = problems.attempt
    source = attempt("--input", lambda: open_source(flags.input, flags.input_column, flags.input_format))
    output = attempt("--output", flags.open_output)
    base = attempt("--base", lambda: describe_base(flags.base))
    if base and base[1].perceptual is None:
        problems.append(Problem("--base", f"base {base[1].name} has no perceptual distance, which ranking needs"))
    if problems or not (source and output and base):
        raise ConfigError(problems)
    identity: list[Any] = [flags.config().model_dump(), flags.fit, fingerprint(base[1])]
    identity += [flags.decoder] if flags.decoder > 1 else []
    hashed = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    job = RankJob(flags, source, output, *base, Variant(NO_STYLE, 0, params_hash=hashed))
    problems.extend(occupied(job.table, [job.variant]))
    if problems:
        raise ConfigError(problems)
    return job


def stages(job: RankJob, run_id: str, before_commit: Callable[[], None] = lambda: None) -> Stages:
    """What happens to a picture, in order."""
    flags = job.flags
    return Stages(
        list=job.source,
        plan=Plan(job.table, (job.variant,), flags.retry_failed),
        decode=Decode(job.source, job.base.image_size, flags.fit, flags.max_pixels),
        task=RankerTask(variants=(job.variant,), encode=flags.encode(job.base_location), config=flags.config()),
        worker=Ranker,
        record=Record(
            job.table,
            [job.variant],
            run_id=run_id,
            seed=flags.seed,
            retrying=flags.retry_failed,
            before_commit=before_commit,
        ),
    )


def write_lists(job: RankJob) -> None:
    """Both lists, anew."""
    for name, uris in zip((LOW, HIGH), extremes(job.table, job.flags.count), strict=True):
        job.output.write_bytes(name, "".join(f"{uri}\n" for uri in uris).encode(errors="surrogateescape"))


def extremes(table: Manifest, count: int) -> tuple[list[str], list[str]]:
    """URIs of (lowest density, highest density), at most ``count`` each; the most extreme first, ties by URI."""
    batches = table.batches(["input_uri", "distance"], "status = 'done'")
    rows = pa.Table.from_batches(batches, pa.schema([("input_uri", pa.string()), ("distance", pa.float64())]))

    def first(order: str) -> list[str]:
        keys = [("distance", order), ("input_uri", "ascending")]
        uris: list[str] = rows.take(pc.select_k_unstable(rows, count, keys))["input_uri"].to_pylist()
        return uris

    return first("descending"), first("ascending")


def main() -> ExitCode:
    """Read flags, check, print the plan, run, write the record."""
    flags = parse_flags(RankFlags, further=resolve)
    job = resolve(flags)
    console.print(f"input   {flags.input}\nbase    {job.base.name}, {job.base_location}", markup=False)
    console.print(f"method  {', '.join(f'{name}={value}' for name, value in flags.config())}", markup=False)
    console.print(f"output  {job.output.child_uri(TABLE)}, {LOW}, {HIGH}", markup=False)
    if flags.dry_run:
        console.print(f"room for {foreseen(flags, DECODE_CPUS)[1]}", markup=False)
        return ExitCode.DONE
    with run_record(job.output, job="rank_density", config=flags) as record:
        tally = Tally()
        try:
            with exclusive(job.output, job.table, [job.variant], record, flags.if_busy) as held:
                with record.timed("rank"):
                    run(stages(job, record.run_id, held.check), flags, tally)
                write_lists(job)
        finally:
            record.counts.update(tally.counts())
    done, rejected, failed = (record.counts[status] for status in ("done", "rejected", "failed"))
    console.print(f"{done} measured, {rejected} rejected, {failed} failed of {tally.inputs} inputs")
    if tally.passed_over:
        console.print(f"passed over: {in_words(tally.passed_over)}", markup=False)
    return record.exit_code


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(RunStopped, LeaseHeld, LeaseLost))


if __name__ == "__main__":
    command()
