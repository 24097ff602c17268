"""What a command would do and take, for its plan: pairs that are missing, and what a pair took in earlier runs."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from cluster.runtime.run_record import RunRecord, records
from cluster.storage import Storage
from jobs.streaming.planning import Tally
from jobs.streaming.run import Stages

SECONDS_PER_PAIR = "seconds_per_pair"
"""A worker's seconds for a pair, in the metrics of a run's record."""

_ALIKE = ("base", "encode_steps", "decode_steps", "size", "precision", "quality")
"""Flags that a pair's time depends on most."""
_LOOKED_AT = 50


def missing(stages: Stages, limit: int | None) -> tuple[int, Tally]:
    """Pairs that the command would decide; what it finds decided is in the tally."""
    tally = Tally()
    items = islice(stages.list.items(tally.passed_over), limit)
    work = stages.plan(items, tally, unique=stages.list.unique)
    return sum(len(row["missing"]) for row in work), tally


def seconds_per_pair(storage: Storage, job: str, config: Mapping[str, Any]) -> tuple[float, RunRecord] | None:
    """Of the newest run with the same settings that recorded it."""
    for record in records(storage, _LOOKED_AT, job):
        alike = all(record.config.get(name) == config.get(name) for name in _ALIKE)
        if alike and record.metrics.get(SECONDS_PER_PAIR):
            return record.metrics[SECONDS_PER_PAIR], record
    return None


def in_words(pairs: int, measured: tuple[float, RunRecord] | None, gpus: float) -> str:
    """As: 3,000,000 pairs; 0.12 s each in run R: 100 worker-hours, 50 GPU hours."""
    if measured is None:
        return f"{pairs:,} pairs; what one takes is known once a run here has done some (--limit 100)"
    seconds, record = measured
    hours = pairs * seconds / 3600
    used = f", {hours * gpus:.3g} GPU hours" if gpus else ""
    return f"{pairs:,} pairs; {seconds:.3g} s each in run {record.run_id}: {hours:.3g} worker-hours{used}"
