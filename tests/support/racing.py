"""Processes that begin together."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def wait_for_start() -> None:
    """What each racing script calls between its preparations and the race."""
    print("ready", flush=True)
    sys.stdin.readline()


def race(script: str, arguments: Sequence[Sequence[object]], timeout: float = 120) -> list[str]:
    """Run ``script`` in one process for each of ``arguments``; none passes :func:`wait_for_start` before all reach it.

    What each printed from there on. Fails unless all exit with 0 and print no errors.
    """
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, given)],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for given in arguments
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n", racer.communicate()
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=timeout) for racer in racers]
    failed = [
        f"racer {number} left with {racer.returncode}, having printed {printed[-2000:]!r} and\n{errors}"
        for number, (racer, (printed, errors)) in enumerate(zip(racers, outputs, strict=True))
        if racer.returncode or errors
    ]
    assert not failed, "\n".join(failed)
    return [printed for printed, _ in outputs]
