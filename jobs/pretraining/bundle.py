"""Assembling a bundle from finished parts."""

import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from cluster.commandline.cli import ConfigError, Problem
from cluster.runtime.resources import Resources
from cluster.storage import Storage
from jobs.pretraining.dataset import open_images
from jobs.pretraining.parts import part_file
from osasis.base import Base, BaseSpec, Provenance, save_base
from osasis.content import bank_part, encode_in_batches
from osasis.errors import ImageRejected
from osasis.image import decode_image, fit, to_tensor
from osasis.pretrain.crops import CropSampler
from osasis.pretrain.recipe import PARTS, Recipe


def write_bundle(
    name: str,
    recipe: Recipe,
    out: Storage,
    work: Storage,
    bank: list[Tensor],
    resources: Resources,
    *,
    data: str,
    license: str,
) -> None:
    """Write what is finished below ``work`` to ``out``, ``base.json`` last.

    Args:
        bank: photographs [3, S, S] in [-1, 1] of the content bank.
        resources: what the task that encodes them takes.
    """
    parts = {part: load_tensors(work.read_bytes(part_file(part))) for part in PARTS if work.exists(part_file(part))}
    spec = BaseSpec(
        name=name,
        image_size=recipe.image_size,
        unet=recipe.unet,
        encoder=recipe.encoder,
        latent_prior=recipe.latent_prior if "latent_prior" in parts else None,
        photo_prior=recipe.photo_prior if "photo_prior" in parts else None,
        clip=recipe.clip if "clip" in parts else None,
        # LPIPS's weights are not trained here: a bundle has them only by import.
        perceptual=recipe.perceptual if "clip" in parts and recipe.perceptual.kind == "clip" else None,
        style_levels=recipe.style_levels,
        train_defaults=recipe.train_defaults,
        provenance=Provenance(made_by="jobs/train_base.py", data=data, license=license),
    )
    options = resources.ray_options()
    task = ray.remote(encode_bank).options(**options)
    bank_tensors = ray.get(task.remote(spec, recipe, work, torch.stack(bank), options))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = save_base(folder, spec, parts | {"content_bank": bank_tensors})
        for file in (*spec.files, "base.json"):
            out.upload_file(folder / file, file)


def encode_bank(
    spec: BaseSpec, recipe: Recipe, work: Storage, photos: Tensor, options: dict[str, float]
) -> dict[str, Tensor]:
    """The content bank, encoded where a worker runs: the driver may have no GPU."""
    torch.set_num_threads(max(1, int(options["num_cpus"])))
    diffae = load_tensors(work.read_bytes(part_file("diffae")))
    rounded = {name: tensor.half() for name, tensor in diffae.items()}  # as the bundle keeps them
    base = Base(spec, "", {"diffae": rounded}, "cuda" if options["num_gpus"] else "cpu")
    settings: dict[str, Any] = {"steps": recipe.bank_encode_steps, "t0_ratio": recipe.bank_t0_ratio, "clamp": True}
    return bank_part(encode_in_batches(base, photos, 16, **settings), **settings)


def bank_from_folder(photos: Storage, recipe: Recipe) -> list[Tensor]:
    """The first images of a folder.

    Raises:
        ConfigError: there is none, or one cannot be used.
    """
    names = photos.list_files()[: recipe.bank_size]
    if not names:
        raise ConfigError(Problem("--bank-images", f"{photos} holds no files"))
    bank = []
    for name in names:
        try:
            bank.append(to_tensor(fit(decode_image(photos.read_bytes(name)), recipe.image_size)[0]))
        except ImageRejected as error:
            raise ConfigError(Problem("--bank-images", f"{photos.child_uri(name)}: {error}")) from error
    return bank


def bank_from_set(work: Storage, data: str, recipe: Recipe) -> list[Tensor]:
    """The first images of the decoded set."""
    crops = CropSampler(open_images(work, data), recipe.image_size)
    return [crops.whole(i) for i in range(min(recipe.bank_size, len(crops)))]
