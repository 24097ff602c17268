"""Images per second of pretraining: against the floor, and against the plain path, in one run.

``python benchmarks/train_base.py`` trains the recipe's DiffAE for some steps per path, the paths in turn. The floor is
FLOPs by the matrix rate of this machine, measured between the paths. On a CPU, time is processor time: other processes
do not count.
"""

import statistics
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from cluster.commandline.cli import ExitCode, JobFlags, parse_flags, run_job
from osasis.networks.diffae import DiffAE
from osasis.networks.layers import GroupNorm
from osasis.pretrain.cost import matmul_rate, timed, training_cost
from osasis.pretrain.denoising import DenoisingTrainer
from osasis.pretrain.recipe import RECIPES, Recipe

console = Console(highlight=False, soft_wrap=True, width=120)


@dataclass(frozen=True)
class Path:
    """One way of computing the same step."""

    bf16: bool = True
    channels_last: bool = True
    own_group_norm: bool = True
    compiled: bool = False


PATHS = {
    "plain: float32, contiguous, PyTorch's group norm": Path(bf16=False, channels_last=False, own_group_norm=False),
    "as trained: bf16, channels-last, own group norm": Path(),
    "as trained, float32": Path(bf16=False),
    "as trained, PyTorch's group norm": Path(own_group_norm=False),
    "as trained, contiguous": Path(channels_last=False),
    "as trained, torch.compile": Path(compiled=True),
}


class BenchmarkFlags(JobFlags):
    """Measures training steps of a recipe's DiffAE on random images."""

    recipe: str = Field("mini64", description="A recipe by name.")
    batch_size: int = Field(16, gt=0, description="Images per step.")
    steps: int = Field(3, gt=0, description="Steps per path and round, after one to warm up.")
    rounds: int = Field(3, gt=0, description="Rounds over all paths; the median is told.")
    compile: bool = Field(False, description="Also measure torch.compile, which takes minutes to compile.")
    profile: bool = Field(False, description="Also tell where a step's time goes.")
    device: str = Field(
        "cuda" if torch.cuda.is_available() else "cpu",
        description="Where it runs; OMP_NUM_THREADS sets a CPU's threads.",
    )


def main() -> int:
    flags = parse_flags(BenchmarkFlags)
    recipe = RECIPES[flags.recipe]()
    cost = training_cost(recipe, "diffae")
    paths = {name: path for name, path in PATHS.items() if flags.compile or not path.compiled}
    console.print(
        f"{flags.recipe}, batch {flags.batch_size}, {torch.get_num_threads()} threads on {flags.device}: "
        f"{cost.flops_per_image / 1e9:.2f} GFLOP an image"
    )
    trainers = {name: _trainer(recipe, path, flags) for name, path in paths.items()}
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    drawing: list[float] = []
    rates: dict[torch.dtype, list[float]] = {torch.bfloat16: [], torch.float32: []}
    for round_ in range(flags.rounds):
        for dtype, measured in rates.items():
            measured.append(matmul_rate(flags.device, dtype))
        for name, trainer in trainers.items():
            with _as_path(paths[name]):
                if round_ == 0:
                    trainer.step()
                seconds[name] += [timed(trainer.step, flags.device) for _ in range(flags.steps)]
        first = next(iter(trainers.values()))
        drawing.append(timed(partial(first.draw, 0, range(flags.batch_size)), "cpu"))
    bf16, f32 = (statistics.median(measured) for measured in rates.values())
    console.print(f"matrix rate: bf16 {bf16 / 1e9:.0f}, float32 {f32 / 1e9:.0f} GFLOP/s")
    console.print(f"drawing a batch: {1e3 * statistics.median(drawing):.0f} ms of a step")
    table = Table("path", "images/s", "of its floor", "against plain")
    plain = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        rate = flags.batch_size / (step := statistics.median(times))
        floor = (bf16 if paths[name].bf16 else f32) / cost.flops_per_image
        table.add_row(name, f"{rate:.1f}", f"{rate / floor:.0%}", f"{plain / step:.2f}×")
    console.print(table)
    if flags.profile:
        _print_profile(next(t for name, t in trainers.items() if name.startswith("as trained")))
    return ExitCode.DONE


def _trainer(recipe: Recipe, path: Path, flags: BenchmarkFlags) -> DenoisingTrainer:
    torch.manual_seed(0)
    side = recipe.decode_size
    images = np.random.default_rng(0).integers(0, 255, (flags.batch_size, side, side, 3), dtype=np.uint8)
    changes = {"batch_size": flags.batch_size, "precision": "bf16" if path.bf16 else "float32", "loaders": 0}
    config = recipe.diffae_training.model_copy(update=changes)

    def wrap(module: nn.Module) -> nn.Module:
        return torch.compile(module) if path.compiled else module  # type: ignore[return-value]

    trainer = DenoisingTrainer(DiffAE(recipe.unet, recipe.encoder), images, config, flags.device, wrap, recipe.augment)
    if not path.channels_last:
        trainer.module.to(memory_format=torch.contiguous_format)
        draw = trainer.draw
        trainer.draw = lambda step, places: tuple(x.contiguous() for x in draw(step, places))  # type: ignore[method-assign]
    return trainer


@contextmanager
def _as_path(path: Path) -> Any:
    """PyTorch's group norm where the path says so."""
    if path.own_group_norm:
        yield
    else:
        with patch.object(GroupNorm, "forward", nn.GroupNorm.forward):
            yield


def _print_profile(trainer: DenoisingTrainer) -> None:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        trainer.step()
    console.print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=40))


if __name__ == "__main__":
    run_job(main)
