"""The cost of a training, as a table: printed by ``--dry-run``."""

import torch
from rich.table import Table

from osasis.pretrain.cost import matmul_rate, training_cost
from osasis.pretrain.recipe import PartName, Recipe

_GIB = 2**30


def cost_table(recipe: Recipe, parts: list[PartName], workers: int, gflops: float | None) -> Table:
    """Parameters, FLOPs, memory and least time of parts.

    Args:
        gflops: matrix rate of a worker, 10⁹ FLOPs per second; None: measured on this machine, in the part's precision.
    """
    table = Table(
        "part", "parameters", "GFLOP/image", "TFLOP/step", "memory/worker", "images", "least time",
        caption="Least time: FLOPs by the matrix rate; two to three times as much is usual.",
    )  # fmt: skip
    measured: dict[str, float] = {}
    for part in parts:
        config, cost = recipe.training(part), training_cost(recipe, part)
        if gflops is None and config.precision not in measured:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
            measured[config.precision] = matmul_rate(device, dtype)
        rate = measured[config.precision] if gflops is None else gflops * 1e9
        step = cost.flops_per_image * config.batch_size
        table.add_row(
            part,
            f"{cost.parameters:,}",
            f"{cost.flops_per_image / 1e9:.3g}",
            f"{step / 1e12:.3g}",
            f"{cost.memory(config, workers) / _GIB:.2f} GiB",
            f"{config.steps * config.batch_size:,}",
            _duration(config.steps * step / (workers * rate)),
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"
