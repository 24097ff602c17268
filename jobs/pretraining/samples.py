"""A look at what a part has learned so far: a grid of pictures, or figures."""

import numpy as np
import torch
from torchvision.utils import make_grid

from cluster.storage import Storage
from jobs.pretraining.dataset import open_images, read_rows, spread
from jobs.pretraining.latents import load_diffae
from jobs.pretraining.parts import part_file
from osasis.image import encode_png, to_image
from osasis.pretrain.clip import ClipTrainer, evaluate
from osasis.pretrain.crops import CropSampler
from osasis.pretrain.denoising import DenoisingTrainer
from osasis.pretrain.latent import LatentTrainer
from osasis.pretrain.recipe import PartName, Recipe
from osasis.pretrain.samples import latent_samples, photo_prior_samples, reconstructions
from osasis.pretrain.trainer import Trainer
from osasis.seeding import generator

_COLUMNS, _LABELLED = 8, 256


def look(
    part: PartName, trainer: Trainer, recipe: Recipe, work: Storage, data: str
) -> tuple[bytes | None, dict[str, float]]:
    """(PNG, figures) of the averaged weights; the noise is the same at every look.

    DiffAE: eight images of the set above their reconstructions from z_sem and noise. Priors: sixteen samples.
    CLIP: zero-shot and retrieval figures on some images of the set.
    """
    rng = generator(trainer.config.seed, "look", part)
    size = recipe.image_size
    match trainer:
        case ClipTrainer():
            images, rows = open_images(work, data), read_rows(work, data)
            taken = list(spread(len(rows), _LABELLED))
            pixels = np.stack([images[i] for i in taken])
            return None, evaluate(trainer.averaged, pixels, [rows[i] for i in taken], trainer.config.view_size)
        case LatentTrainer():
            diffae = load_diffae(recipe, work, part_file("diffae")).to(trainer.device)
            pictures = latent_samples(diffae, trainer.averaged, trainer.mean, trainer.std, 2 * _COLUMNS, rng)
        case DenoisingTrainer() if part == "diffae":
            crops = CropSampler(open_images(work, data), size)
            photos = torch.stack([crops.whole(i) for i in spread(len(crops), _COLUMNS)]).to(trainer.device)
            pictures = torch.cat([photos, reconstructions(trainer.averaged, photos, rng)])  # type: ignore[arg-type]
        case DenoisingTrainer():
            pictures = photo_prior_samples(trainer.averaged, 2 * _COLUMNS, rng)  # type: ignore[arg-type]
        case _:
            raise TypeError(f"{type(trainer).__name__} has nothing to look at")
    grid = make_grid(pictures.cpu().clamp(-1, 1), min(_COLUMNS, (len(pictures) + 1) // 2), pad_value=1.0)
    return encode_png(to_image(grid)), {}
