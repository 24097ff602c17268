"""The parts of a base, each one Ray Train run, data-parallel over any number of workers."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cluster.cache import fetch
from cluster.resources import Ask
from cluster.storage import Storage
from jobs.bases import base_folder
from osasis.clip import ClipEncoder
from osasis.diffae import DiffAE
from osasis.latent_prior import LatentPrior
from osasis.pretrain.clip import ClipTrainer
from osasis.pretrain.denoising import DenoisingTrainer, warm_start
from osasis.pretrain.latent import LatentTrainer
from osasis.pretrain.recipe import Recipe
from osasis.pretrain.trainer import Trainer
from osasis.seeding import stable_seed
from osasis.unet import UNet

PartName = Literal["diffae", "latent", "photo-prior", "clip"]
ORDER: tuple[PartName, ...] = ("diffae", "latent", "photo-prior", "clip")
"""The latent and photo priors start from the trained DiffAE."""

BUNDLE_PART = {"diffae": "diffae", "latent": "latent_prior", "photo-prior": "photo_prior", "clip": "clip"}
IMAGES, ROWS, REPORT_EVERY = "images.npy", "rows.json", 20


def part_file(part: PartName) -> str:
    """Where a finished part's weights are, below the job's working folder."""
    return f"parts/{BUNDLE_PART[part]}.safetensors"


def fit_part(
    part: PartName,
    recipe: Recipe,
    work: Storage,
    workers: int,
    ask: Ask,
    checkpoint_every: int,
    start_from: str | None = None,
) -> None:
    """Train one part to its end, resuming an earlier run of the same name.

    Args:
        start_from: location of a base of the same sizes whose weights a new run begins with.
    """
    resources = {"CPU": ask.cpus} | ({"GPU": ask.gpus} if ask.gpus else {})
    TorchTrainer(
        _train_part,
        train_loop_config={
            "part": part,
            "recipe": recipe.model_dump(mode="json"),
            "work": work,
            "threads": max(1, int(ask.cpus)),
            "checkpoint_every": checkpoint_every,
            "start_from": start_from,
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=ask.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"pretrain-{part}",
            storage_path=work.child("train").path,
            storage_filesystem=None if work.is_local else work.filesystem,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    ).fit()


def _train_part(config: dict[str, Any]) -> None:
    """Ray Train's loop, on every worker."""
    part: PartName = config["part"]
    recipe = Recipe.model_validate(config["recipe"])
    work: Storage = config["work"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(config["threads"])

    def wrap(module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module) if world > 1 else module

    trainer = make_trainer(part, recipe, work, str(device), wrap)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None and config["start_from"] is not None:
        trainer.start_from(part_weights(config["start_from"], part))
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load_state_dict(torch.load(Path(folder) / "state.pt", map_location=device, weights_only=True))
    since, losses = time.monotonic(), []
    while trainer.next_step < trainer.config.steps:
        metrics = trainer.step(rank, world)
        losses.append(metrics["loss"])
        step = trainer.next_step
        if step % REPORT_EVERY == 0 and rank == 0:
            rate = len(losses) * trainer.config.batch_size / (time.monotonic() - since)
            print(
                f"{part} step {step}/{trainer.config.steps} loss {np.mean(losses):.4f} {rate:.1f} images/s", flush=True
            )
            since, losses = time.monotonic(), []
        if step % config["checkpoint_every"] == 0 and step < trainer.config.steps:
            _checkpoint(metrics, trainer, rank)
    if rank == 0:
        work.write_bytes(part_file(part), dump_tensors(finished_weights(trainer)))
    ray.train.report({"step": trainer.next_step})


def _checkpoint(metrics: dict[str, float], trainer: Trainer, rank: int) -> None:
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(trainer.state_dict(), Path(folder) / "state.pt")
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def make_trainer(part: PartName, recipe: Recipe, work: Storage, device: str, wrap: Any) -> Trainer:
    """The trainer of a part, with its networks seeded and its data loaded from the working folder."""
    images = np.load(fetch(work.child_uri(IMAGES)), mmap_mode="r", allow_pickle=False)
    torch.manual_seed(stable_seed("initial weights", part))
    match part:
        case "diffae":
            network = DiffAE(recipe.unet, recipe.encoder)
            return DenoisingTrainer(network, images, recipe.diffae_training, device, wrap)
        case "photo-prior":
            prior = UNet(recipe.photo_prior)
            warm_start(prior, _trained_diffae(recipe, work).unet)
            return DenoisingTrainer(prior, images, recipe.photo_training, device, wrap)
        case "latent":
            z = semantic_codes(_trained_diffae(recipe, work).to(device), images, recipe.image_size)
            return LatentTrainer(LatentPrior(recipe.latent_prior), z, recipe.latent_training, device, wrap)
        case "clip":
            rows = json.loads(work.read_bytes(ROWS))
            return ClipTrainer(ClipEncoder(recipe.clip), images, rows, recipe.clip_training, device, wrap)


def part_weights(location: str, part: PartName) -> dict[str, Tensor]:
    """Weights of one part of a finished base, without the latent prior's normalization."""
    tensors = load_tensors((base_folder(location) / f"{BUNDLE_PART[part]}.safetensors").read_bytes())
    return {name: tensor.float() for name, tensor in tensors.items() if not name.startswith("conds_")}


def finished_weights(trainer: Trainer) -> dict[str, Tensor]:
    """What the bundle keeps of a part: the averaged weights; the latent prior also its normalization."""
    averaged: nn.Module = trainer.averaged  # type: ignore[attr-defined]
    tensors = {name: tensor.contiguous().cpu() for name, tensor in averaged.state_dict().items()}
    if isinstance(trainer, LatentTrainer):
        tensors |= {"conds_mean": trainer.mean.cpu(), "conds_std": trainer.std.cpu()}
    return tensors


def _trained_diffae(recipe: Recipe, work: Storage) -> DiffAE:
    network = DiffAE(recipe.unet, recipe.encoder).eval()
    tensors = load_tensors(work.read_bytes(part_file("diffae")))
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return network


@torch.no_grad()
def semantic_codes(diffae: DiffAE, images: np.ndarray, size: int) -> Tensor:
    """z_sem of every image and of its mirror image, in the dataset's full framing: [2N, D]."""
    device = next(diffae.parameters()).device
    codes = []
    for start in range(0, len(images), 64):
        pixels = torch.from_numpy(np.array(images[start : start + 64])).permute(0, 3, 1, 2).float()
        pixels = nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True) / 127.5 - 1
        codes += [diffae.encoder(batch.to(device)).cpu() for batch in (pixels, pixels.flip(-1))]
    return torch.cat(codes)
