"""Lists the runs of a storage and what they do or did, from their records alone."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pydantic import Field, ValidationError
from rich.console import Console
from rich.table import Table

from cluster.commandline.cli import ExitCode, JobFlags, parse_flags, run_job
from cluster.runtime.run_record import RunRecord
from cluster.storage import Storage, StorageError


class StatusFlags(JobFlags):
    """Lists the runs below --storage, the newest first: job, outcome, start, duration, counts. Writes nothing.

    A run that was killed has no end in its record, and is listed as running. Exit codes: 0 done; 1 storage failed;
    2 bad usage.
    """

    storage: str = Field(description="Where the records are: path or s3:// URI of a storage or of a stylize output.")
    limit: int = Field(20, gt=0, description="Newest runs shown.")
    job: str | None = Field(None, description="Runs of this job only, such as stylize.")
    json_lines: bool = Field(False, description="Print a JSON object per run, for programs.")


def records(storage: Storage, limit: int, job: str | None = None) -> Iterator[RunRecord]:
    """The newest first. Records that cannot be read, damaged or of a later version, are passed over."""
    found = 0
    for name in sorted(storage.list_files("runs", recursive=False), reverse=True):
        if not name.endswith(".json") or found == limit:
            continue
        try:
            record = RunRecord.model_validate_json(storage.read_bytes(f"runs/{name}"))
        except (StorageError, ValidationError):
            continue
        if job is None or record.job == job:
            found += 1
            yield record


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


if __name__ == "__main__":
    run_job(main)
