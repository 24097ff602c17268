"""One run at a time per output: two would decide the same inputs twice, or lay other pictures over each other's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console

from catalog.manifest import Manifest
from cluster.commandline.cli import ConfigError
from cluster.runtime.lease import Lease, LeaseHolder, lease
from cluster.runtime.run_record import RunRecord
from cluster.storage import Storage
from jobs.streaming.command import occupied
from jobs.streaming.variants import Variant


@contextmanager
def exclusive(
    output: Storage,
    table: Manifest,
    variants: Sequence[Variant],
    record: RunRecord,
    if_busy: Literal["leave", "wait"],
) -> Iterator[Lease]:
    """Hold the output while the body runs.

    Raises:
        LeaseHeld: another run holds it, and is not to be waited for.
        ConfigError: a run that ended meanwhile left pictures of other parameters there.
    """

    def told(holder: LeaseHolder) -> None:
        Console(stderr=True).print(f"waiting for {holder}, which works on {output}", markup=False, highlight=False)

    wait = if_busy == "wait"
    with lease(output, table.name, run_id=record.run_id, job=record.job, wait=wait, on_wait=told) as held:
        if problems := occupied(table, variants):
            raise ConfigError(problems)
        yield held
