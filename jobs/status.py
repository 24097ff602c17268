"""Lists the runs of a storage and what they do or did, from their records alone."""

import json
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from pydantic import Field
from rich.console import Console
from rich.table import Table

from cluster.commandline.cli import ExitCode, JobFlags, Uri, parse_flags, run_job
from cluster.runtime.run_record import RunRecord, records
from cluster.storage import Storage


class StatusFlags(JobFlags):
    """List the runs below --storage, the newest first: job, outcome, start, duration, counts. Writes nothing.

    A run that was killed has no end in its record and is listed as running.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--storage runs/demo",
        "--storage s3://bucket/styles --job stylize --limit 5",
    )

    storage: Uri = Field(description="Where the records are: a storage, or the output of stylize.")
    limit: int = Field(20, gt=0, description="At most N runs.")
    job: str | None = Field(None, description="Runs of this job only, such as stylize.")
    json_lines: bool = Field(False, description="Print a JSON object per run, for programs.")


def row(record: RunRecord, now: datetime) -> list[str]:
    """What the table shows of a run."""
    seconds = record.seconds if record.seconds is not None else (now - record.started_at).total_seconds()
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in record.counts.items() if count)
    return [
        record.run_id, record.job, record.outcome, f"{record.started_at:%Y-%m-%d %H:%M}",
        str(timedelta(seconds=round(seconds))), record.host, record.error or counts,
    ]  # fmt: skip


def main() -> ExitCode:
    flags = parse_flags(StatusFlags)
    storage = Storage.open(flags.storage)
    runs = [*records(storage, flags.limit, flags.job)]
    if flags.json_lines:
        for record in runs:
            print(json.dumps(record.model_dump(mode="json")))
        return ExitCode.DONE
    console = Console(highlight=False, soft_wrap=True)
    if not runs:
        console.print(f"no runs below {storage}", markup=False)
        return ExitCode.DONE
    table = Table("run", "job", "outcome", "started (UTC)", "took", "host", "what", box=None)
    for record in runs:
        table.add_row(*row(record, datetime.now(UTC)))
    console.print(table)
    return ExitCode.DONE


def command() -> None:
    """The job as a console script."""
    run_job(main)


if __name__ == "__main__":
    command()
