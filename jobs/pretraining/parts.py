"""The parts of a base: what each trains, on what, and which weights it keeps."""

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from cluster.storage import Storage
from jobs.pretraining.dataset import open_images, read_rows, spread
from jobs.pretraining.latents import load_codes, load_diffae
from jobs.shared.bases import base_folder, describe_base
from osasis.networks.clip import ClipEncoder
from osasis.networks.diffae import DiffAE
from osasis.networks.latent_prior import LatentPrior
from osasis.networks.unet import UNet
from osasis.pretrain.clip import ClipTrainer, pretrained_tower
from osasis.pretrain.denoising import DenoisingTrainer, warm_start
from osasis.pretrain.latent import LatentTrainer
from osasis.pretrain.recipe import PartName, Recipe
from osasis.pretrain.retime import retimed
from osasis.pretrain.trainer import Trainer, Wrap
from osasis.seeding import stable_seed


def part_file(part: PartName) -> str:
    """Where a finished part's weights are, below the job's working folder."""
    return f"parts/{part}.safetensors"


def make_trainer(part: PartName, recipe: Recipe, work: Storage, data: str, device: str, wrap: Wrap) -> Trainer:
    """The trainer of a part, its network seeded; ``data``: name of the decoded image set below the working folder."""
    torch.manual_seed(stable_seed("initial weights", part))
    images, augment = open_images(work, data), recipe.augment
    match part:
        case "diffae":
            network = DiffAE(recipe.unet, recipe.encoder)
            return DenoisingTrainer(network, images, recipe.diffae_training, device, wrap, augment)
        case "photo_prior":
            prior = UNet(recipe.photo_prior)
            warm_start(prior, load_diffae(recipe, work, part_file("diffae")).unet)
            return DenoisingTrainer(prior, images, recipe.photo_prior_training, device, wrap, augment)
        case "latent_prior":
            z = load_codes(work, data, part_file("diffae"))
            return LatentTrainer(LatentPrior(recipe.latent_prior), z, recipe.latent_prior_training, device, wrap)
        case "clip":
            rows, c = read_rows(work, data), recipe.clip_training
            taken = list(spread(len(rows), c.most_images))
            pixels, labels = np.stack([images[i] for i in taken]), [rows[i] for i in taken]
            return ClipTrainer(pretrained_tower(ClipEncoder(recipe.clip)), pixels, labels, c, device, wrap, augment)


def part_weights(location: str, part: PartName) -> dict[str, Tensor]:
    """Weights of one part of a finished base, without the latent prior's normalization."""
    tensors = load_tensors((base_folder(location) / f"{part}.safetensors").read_bytes())
    return {name: tensor.float() for name, tensor in tensors.items() if not name.startswith("conds_")}


def starting_weights(location: str, part: PartName, recipe: Recipe) -> dict[str, Tensor]:
    """:func:`part_weights`, moved to the recipe's noise schedule where the finished base had another."""
    spec, weights = describe_base(location)[1], part_weights(location, part)
    if part == "diffae":
        return retimed(weights, spec.unet, recipe.unet, "unet.")
    if part == "photo_prior" and spec.photo_prior is not None:
        return retimed(weights, spec.photo_prior, recipe.photo_prior)
    return weights


def finished_weights(trainer: Trainer) -> dict[str, Tensor]:
    """What the bundle keeps of a part: the averaged weights; the latent prior also its normalization."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in trainer.averaged.state_dict().items()}
    if isinstance(trainer, LatentTrainer):
        tensors |= {"conds_mean": trainer.mean.cpu(), "conds_std": trainer.std.cpu()}
    return tensors
