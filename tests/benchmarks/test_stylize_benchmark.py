"""benchmarks/stylize.py: its simulated cluster, and its solvers beside the method's own."""

from pathlib import Path

import pytest
import torch

from benchmarks.stylize_parts.fidelity import dpm_solver, held
from benchmarks.stylize_parts.nodes import BATCH, INPUTS, STYLES, simulate
from osasis.diffusion import Schedule, sparse_ddim


def test_two_simulated_workers_are_twice_as_fast_as_one(tmp_path: Path) -> None:
    rates = [simulate(str(tmp_path / str(workers)), workers, 2, seconds=1.0)[0] for workers in (1, 2)]
    assert rates == [pytest.approx(workers * BATCH, rel=0.1) for workers in (1, 2)]
    assert INPUTS % BATCH == 0
    assert STYLES > 1


@pytest.mark.parametrize("upwards", [True, False])
def test_solvers_that_ask_at_every_step_agree(upwards: bool) -> None:
    schedule = Schedule.ddim(20)
    steps = list(range(11)) if upwards else [*range(10, -1, -1), -1]
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ours, other, higher = (
        solver(x, lambda x, t: 0.3 * x, schedule, steps, set(steps[:-1]), clamp=False)
        for solver in (sparse_ddim, held, dpm_solver)
    )
    assert torch.equal(ours, other)
    assert (higher - ours).norm() < 0.1 * ours.norm()
