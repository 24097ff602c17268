"""benchmarks/stylize.py: its simulated cluster, and its solvers beside the method's own."""

from pathlib import Path

import pytest
import torch

from benchmarks.stylize_parts import cheaper
from benchmarks.stylize_parts.device import covered
from benchmarks.stylize_parts.fidelity import dpm_solver, held
from benchmarks.stylize_parts.nodes import BATCH, INPUTS, STYLES, simulate
from benchmarks.stylize_parts.studio import studio
from osasis.diffusion import Schedule, sparse_ddim
from osasis.pretrain.recipe import RECIPES
from tests.support.tiny import tiny_recipe


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


def test_every_lever_costs_no_more_work_than_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "ffhq256", tiny_recipe)
    said: list[str] = []
    made = studio(2, tmp_path, None, torch.device("cpu"), "ffhq256")
    cheaper.measure(made, 2, compiled=False, say=said.append)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == [way.name for way in cheaper.ways(gpu=False, compiled=False)]
    work = [float(row[6]) for row in rows]
    assert work == sorted(work, reverse=True)
    assert work[0] > 2 * work[-1]


def test_time_that_kernels_share_counts_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0
