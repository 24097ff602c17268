"""Assembling a bundle from finished parts."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from cluster.cli import ConfigError, Problem
from cluster.storage import Storage
from jobs.pretraining.dataset import open_images
from jobs.pretraining.parts import BUNDLE_PART, ORDER, part_file
from osasis.base import BaseSpec, Provenance, load_base, save_base
from osasis.content import bank_part, encode_in_batches
from osasis.errors import ImageRejected
from osasis.image import decode_image, fit, to_tensor
from osasis.pretrain.crops import CropSampler
from osasis.pretrain.recipe import Recipe


def write_bundle(
    name: str, recipe: Recipe, out: Storage, work: Storage, bank: list[Tensor], *, data: str, license: str
) -> None:
    """Write what is finished below ``work`` to ``out``, ``base.json`` last.

    Args:
        bank: photographs [3, S, S] in [-1, 1] of the content bank.
    """
    parts = {
        BUNDLE_PART[part]: load_tensors(work.read_bytes(part_file(part)))
        for part in ORDER
        if work.exists(part_file(part))
    }
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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = save_base(folder, spec, parts)
        steps, t0_ratio = recipe.bank_encode_steps, recipe.bank_t0_ratio
        content = encode_in_batches(
            load_base(folder), torch.stack(bank), 16, steps=steps, t0_ratio=t0_ratio, clamp=True
        )
        spec = save_base(folder, spec, {"content_bank": bank_part(content, steps=steps, t0_ratio=t0_ratio, clamp=True)})
        for file in (*spec.files, "base.json"):
            out.upload_file(folder / file, file)


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
