"""What a streaming job says of how far it is."""

import io
from collections import Counter

from rich.console import Console

from jobs.streaming import progress as module
from jobs.streaming.planning import Tally
from jobs.streaming.progress import ProgressLine, progress
from jobs.streaming.spent import Clock, Spent


def spent(**seconds: float) -> Spent:
    found = Spent()
    found.add(seconds)
    return found


def tally(*, listed: bool) -> Tally:
    return Tally(inputs=11, duplicates=1, listed=listed, before=Counter(done=4))


def test_progress_tells_total_rate_time_left_and_what_is_waited_for() -> None:
    said = progress({"done": 3, "failed": 1}, tally(listed=True), 2, spent(computing=3, pictures=1, storage=2), 3, 8)
    assert (said.known, said.decided, said.rate, said.left) == (16, 4, 0.5, 24)
    assert (said.computing, said.waits_for) == (0.5, "storage")
    assert str(said) == (
        "3 done, 0 rejected, 1 failed of 16; 0.50 pictures/s by 3 workers, 8 s, 24 s left; "
        "computing 50% of the time, waiting for results to be stored"
    )


def test_while_inputs_are_listed_no_time_left_is_told() -> None:
    said = progress({"done": 4}, tally(listed=False), 2, spent(computing=19, pictures=1), 1, 8)
    assert (
        str(said)
        == "4 done, 0 rejected, 0 failed of 16 or more; 0.50 pictures/s by 1 worker, 8 s; computing 95% of the time"
    )


def test_before_the_first_result_nothing_is_estimated() -> None:
    said = progress({}, tally(listed=True), 2, Spent(), 0, 3)
    assert (said.rate, said.left, said.computing, said.waits_for) == (None, None, None, None)
    assert str(said) == "0 done, 0 rejected, 0 failed of 16; 3 s, 0 workers, waiting for the first"


def test_a_worker_says_what_it_did_since_it_last_said_so() -> None:
    clock = Clock()
    clock.lap("pictures")
    clock.lap("computing")
    first, second = clock.take(), clock.take()
    assert first["computing"] > 0
    assert set(second.values()) == {0.0}


def test_a_log_gets_lines_and_a_terminal_a_bar() -> None:
    for terminal in (False, True):
        out = io.StringIO()
        with ProgressLine(Console(file=out, force_terminal=terminal, width=200)) as line:
            line._said -= module.LOG_SECONDS
            line.update({"done": 4}, tally(listed=True), 2, Spent(), 1)
        assert "4 done" in out.getvalue()
        assert ("━" in out.getvalue()) == terminal
