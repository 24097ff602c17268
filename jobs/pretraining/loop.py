"""Training one part: a Ray Train run, data-parallel over any number of workers, resumed where it stopped."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import save as dump_tensors
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cluster.runtime.resources import Resources
from cluster.storage import Storage
from jobs.pretraining.metrics import Metrics
from jobs.pretraining.parts import finished_weights, make_trainer, part_file, starting_weights
from jobs.pretraining.samples import look
from osasis.pretrain.recipe import PartName, Recipe
from osasis.pretrain.trainer import Trainer

_REPORT_EVERY = 20
_STATE = "state.pt"


@dataclass(frozen=True)
class Pretraining:
    """What all parts of one base share."""

    recipe: Recipe
    work: Storage
    """The working folder: decoded images, checkpoints, finished parts, metrics, samples."""
    data: str
    """Name of the decoded image set below it."""
    workers: int
    resources: Resources
    checkpoint_every: int
    sample_every: int
    """Steps between looks at what the part has learned; 0: none."""
    start_from: str | None = None
    """Location of a base of the same sizes whose weights a new run begins with."""


def fit_part(part: PartName, plan: Pretraining) -> dict[str, float]:
    """Train one part to its end, resuming an earlier run of the same name. Returns its last metrics."""
    resources, work = plan.resources, plan.work
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    TorchTrainer(
        _train_part,
        train_loop_config={"part": part, "plan": plan},
        scaling_config=ScalingConfig(
            num_workers=plan.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            # The same name resumes from the newest checkpoint.
            name=f"pretrain-{part}",
            storage_path=work.child("train").path,
            storage_filesystem=None if work.is_local else work.filesystem,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    ).fit()
    return json.loads(work.read_bytes(_metrics_file(part)))  # Ray keeps metrics of checkpoints alone


def _train_part(config: dict[str, Any]) -> None:
    """Ray Train's loop, on every worker."""
    part: PartName = config["part"]
    plan: Pretraining = config["plan"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(plan.resources.cpus)))

    def wrap(module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module) if world > 1 else module

    trainer = make_trainer(part, plan.recipe, plan.work, plan.data, str(device), wrap)
    _restore(trainer, part, plan)
    with Metrics(plan.work.child("tensorboard", part) if rank == 0 else None, trainer.next_step) as board:
        last = _run(trainer, part, plan, board, rank, world)
    if rank == 0:
        plan.work.write_bytes(_metrics_file(part), json.dumps(last).encode())
        plan.work.write_bytes(part_file(part), dump_tensors(finished_weights(trainer)))
    ray.train.report(last)


def _run(
    trainer: Trainer, part: PartName, plan: Pretraining, board: Metrics, rank: int, world: int
) -> dict[str, float]:
    """Step to the end. Returns the last step's metrics, but the loss as a mean of up to the last hundred steps."""
    losses: list[float] = []
    since, counted, total = time.monotonic(), trainer.next_step, trainer.config.steps
    metrics: dict[str, float] = {}
    while trainer.next_step < total:
        metrics = trainer.step(rank, world)
        step = trainer.next_step
        losses.append(metrics["loss"])
        board.write(step, metrics)
        if step % _REPORT_EVERY == 0 and rank == 0:
            recent = losses[-_REPORT_EVERY:]
            rate = (step - counted) * trainer.config.batch_size / (time.monotonic() - since)
            board.write(step, {"images_per_second": rate})
            print(f"{part} step {step}/{total} loss {np.mean(recent):.4f} {rate:.1f} images/s", flush=True)
            since, counted, losses = time.monotonic(), step, losses[-80:]
        if rank == 0 and plan.sample_every and (step % plan.sample_every == 0 or step == total):
            picture, figures = look(part, trainer, plan.recipe, plan.work, plan.data)
            board.write(step, figures)
            if picture is not None:
                plan.work.write_bytes(f"samples/{part}-{step:07d}.png", picture)
        if step % plan.checkpoint_every == 0 and step < total:
            board.upload()
            _checkpoint(metrics, trainer, rank)
    return metrics | ({"loss": float(np.mean(losses[-100:]))} if losses else {})


def _metrics_file(part: PartName) -> str:
    return part_file(part).replace(".safetensors", ".json")


def _restore(trainer: Trainer, part: PartName, plan: Pretraining) -> None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load_state_dict(torch.load(Path(folder) / _STATE, map_location="cpu", weights_only=True))
    elif plan.start_from is not None:
        trainer.start_from(starting_weights(plan.start_from, part, plan.recipe))


def _checkpoint(metrics: dict[str, float], trainer: Trainer, rank: int) -> None:
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(trainer.state_dict(), Path(folder) / _STATE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
