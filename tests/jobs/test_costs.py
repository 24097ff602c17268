"""What a dry run tells of pairs and time, and what of the styles goes with the pictures."""

import json
from pathlib import Path

import pytest

from catalog.schema import StyleVersion
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.costs import SECONDS_PER_PAIR, in_words, missing, seconds_per_pair
from jobs.stylize import foreseen_costs, stages, write_origins
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path)
    case.add_pictures(3)
    return case


def test_pairs_that_are_decided_are_not_counted_again(case: Case) -> None:
    job = resolve(StylizeFlags(**case.flags, dry_run=True))
    pairs, _ = missing(stages(job, "dry-run"), None)
    assert pairs == 6
    case.run(execute=InProcess.connected, styles="style-0")
    pairs, tally = missing(stages(job, "dry-run"), None)
    assert (pairs, tally.inputs, tally.before.total()) == (3, 3, 3)
    told = foreseen_costs(job)
    assert told["found"] == "3 inputs, 3 pairs decided before"
    assert told["to do"].startswith("3 pairs; what one takes is known once a run here has done some")


def test_hours_follow_from_the_newest_run_with_the_same_settings(case: Case) -> None:
    flags = StylizeFlags(**case.flags)
    other = StylizeFlags(**case.flags | {"decode_steps": 9})
    for seconds, config in ((0.5, flags), (7.0, other)):
        with run_record(case.root, job="stylize", config=config) as record:
            record.metrics[SECONDS_PER_PAIR] = seconds
    measured = seconds_per_pair(case.root, "stylize", flags.model_dump(mode="json"))
    assert measured is not None
    told = in_words(7200, measured, 0.5)
    assert told == f"7,200 pairs; 0.5 s each in run {measured[1].run_id}: 1 worker-hours, 0.5 GPU hours"


def test_licence_and_provenance_of_each_style_lie_beside_the_pictures(case: Case) -> None:
    job = resolve(StylizeFlags(**case.flags))
    write_origins(job)
    for version in job.versions:
        kept = json.loads(job.output.read_bytes(f"styles/{version}.json"))
        assert StyleVersion.model_validate(kept) == version
        assert {"license", "reference_uri", "reference_sha256", "base_fingerprint", "checkpoint_sha256"} <= kept.keys()
