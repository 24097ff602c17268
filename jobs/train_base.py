"""Make a base bundle by pretraining: ``python jobs/train_base.py --images DIR --table labels.csv --out DIR``."""

import json
import tempfile
from pathlib import Path

import torch
from pydantic import Field
from rich.console import Console
from safetensors.torch import load as load_tensors

from cluster.cli import ConfigError, ExitCode, JobFlags, Problem, load_yaml, parse_flags, run_job
from cluster.connection import connect
from cluster.resources import Ask
from cluster.run_record import run_record
from cluster.storage import Storage
from jobs.bases import describe_base
from jobs.pretraining.images import decode_images, dump_array
from jobs.pretraining.parts import BUNDLE_PART, IMAGES, ORDER, ROWS, PartName, fit_part, part_file
from jobs.pretraining.tables import Row, list_images, read_table
from osasis.base import BaseSpec, Provenance, load_base, save_base
from osasis.content import bank_part, encode_in_batches
from osasis.diffae import DiffAE
from osasis.image import decode_image, fit, to_tensor
from osasis.pretrain.recipe import RECIPES, Recipe
from osasis.unet import UNet

console = Console(highlight=False, soft_wrap=True)


class TrainBaseFlags(JobFlags):
    """Trains the networks of a base and writes the bundle: DiffAE, its latent prior, the photo prior, a CLIP.

    Each part is one Ray Train run over --workers workers, taken up again where it stopped when the same command is
    given. Exit codes: 0 done, 1 failed, 2 bad usage or configuration.
    """

    images: str
    """Folder or s3:// prefix of images."""
    table: str | None = None
    """CSV with a column ``file`` (relative to --images) and labels for captions; needed for the part clip."""
    split: str | None = "train"
    """Rows of the table with this value in column ``split``; an empty value takes all."""
    out: str
    """Where the bundle goes: path or s3:// URI. Working files are kept in its folder ``.work``."""
    name: str
    """Name of the base, as styles will know it."""
    recipe: str = "mini64"
    """Sizes of the networks and how they are trained: a name, or a YAML or JSON file."""
    parts: tuple[PartName, ...] = ORDER
    """Which parts to train."""
    bank_images: str | None = None
    """Folder or prefix of photographs for the content bank; default: the first of --images."""
    start_from: str | None = None
    """A base of the same sizes whose weights the parts begin with, not random ones: bundled name, path or URI."""
    steps: dict[str, int] = Field({})
    """Optimizer steps of a part instead of the recipe's, such as --steps diffae=100."""
    workers: int = Field(1, gt=0)
    """Data-parallel workers."""
    cpus_per_worker: float = 1.0
    """CPUs of each worker."""
    gpus_per_worker: float = 0.0
    """GPUs of each worker."""
    checkpoint_every: int = Field(200, gt=0)
    """Steps between checkpoints to resume from."""
    license: str = ""
    """Terms under which the bundle may be used; goes into base.json."""
    data: str = ""
    """What it was trained on; goes into base.json."""
    dry_run: bool = False
    """Print the resolved plan and touch nothing."""


def main() -> int:
    flags = parse_flags(TrainBaseFlags)
    recipe = _recipe(flags)
    out, images = Storage.open(flags.out), Storage.open(flags.images)
    work = out.child(".work")
    rows = read_table(images, Storage.open(flags.table), flags.split or None) if flags.table else list_images(images)
    todo = [part for part in ORDER if part in flags.parts and not work.exists(part_file(part))]
    if "clip" in todo and flags.table is None:
        raise ConfigError(Problem("--table", "missing", "the part clip needs captions; or leave it out by --parts"))
    _print_plan(flags, recipe, rows, todo)
    if flags.dry_run:
        return ExitCode.DONE
    start_from = describe_base(flags.start_from)[0] if flags.start_from else None
    out.check_writable()
    with run_record(work, job="train_base", config=flags.model_dump(mode="json")) as record:
        if todo:
            with connect():
                if not work.exists(IMAGES):
                    _keep_images(images, rows, recipe, work)
                ask = Ask(cpus=flags.cpus_per_worker, gpus=flags.gpus_per_worker)
                for part in todo:
                    with record.timed(part):
                        fit_part(part, recipe, work, flags.workers, ask, flags.checkpoint_every, start_from)
                    console.print(f"{part}: done")
        _write_bundle(flags, recipe, out, work, images, rows)
    console.print(f"[green]Base {flags.name} is in {out}[/green]")
    return ExitCode.DONE


def _recipe(flags: TrainBaseFlags) -> Recipe:
    if flags.recipe in RECIPES:
        recipe = RECIPES[flags.recipe]()
    elif flags.recipe.endswith((".yaml", ".json")):
        recipe = load_yaml(flags.recipe, Recipe)
    else:
        hint = f"there are: {', '.join(RECIPES)}; or give a .yaml or .json file"
        raise ConfigError(Problem("--recipe", f"no recipe {flags.recipe!r}", hint))
    fields = {"diffae": "diffae_training", "latent": "latent_training", "photo-prior": "photo_training"}
    fields["clip"] = "clip_training"
    unknown = flags.steps.keys() - fields.keys()
    if unknown:
        raise ConfigError(Problem("--steps", f"no part {sorted(unknown)[0]!r}", f"there are: {', '.join(fields)}"))
    changed = {
        fields[part]: getattr(recipe, fields[part]).model_copy(update={"steps": steps})
        for part, steps in flags.steps.items()
    }
    return recipe.model_copy(update=changed)


def _print_plan(flags: TrainBaseFlags, recipe: Recipe, rows: list[Row], todo: list[PartName]) -> None:
    with torch.device("meta"):
        sizes = {"diffae": DiffAE(recipe.unet, recipe.encoder), "photo-prior": UNet(recipe.photo_prior)}
    console.print(
        f"base {flags.name}: {len(rows)} images at {recipe.image_size} px, {flags.workers} workers → {flags.out}"
    )
    for part in flags.parts:
        size = f", {sum(p.numel() for p in sizes[part].parameters()):,} parameters" if part in sizes else ""
        console.print(f"  {part}: {'to train' if part in todo else 'done'}{size}")


def _keep_images(images: Storage, rows: list[Row], recipe: Recipe, work: Storage) -> None:
    pixels, kept, rejected = decode_images(images, rows, recipe.decode_size)
    for line in rejected:
        console.print(f"[yellow]left out[/yellow] {line}")
    work.write_bytes(ROWS, json.dumps(kept).encode())
    work.write_bytes(IMAGES, dump_array(pixels))


def _write_bundle(
    flags: TrainBaseFlags, recipe: Recipe, out: Storage, work: Storage, images: Storage, rows: list[Row]
) -> None:
    """Assemble the bundle from the finished parts; ``base.json`` is uploaded last."""
    parts = {
        BUNDLE_PART[part]: load_tensors(work.read_bytes(part_file(part)))
        for part in ORDER
        if work.exists(part_file(part))
    }
    spec = BaseSpec(
        name=flags.name,
        image_size=recipe.image_size,
        unet=recipe.unet,
        encoder=recipe.encoder,
        latent_prior=recipe.latent_prior if "latent_prior" in parts else None,
        photo_prior=recipe.photo_prior if "photo_prior" in parts else None,
        clip=recipe.clip if "clip" in parts else None,
        perceptual=recipe.perceptual if "clip" in parts or recipe.perceptual.kind != "clip" else None,
        style_levels=recipe.style_levels,
        train_defaults=recipe.train_defaults,
        provenance=Provenance(made_by="jobs/train_base.py", data=flags.data, license=flags.license),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = save_base(folder, spec, parts)
        photos = _bank_photos(flags, recipe, images, rows)
        steps, t0_ratio = recipe.bank_encode_steps, recipe.bank_t0_ratio
        content = encode_in_batches(load_base(folder), photos, 16, steps=steps, t0_ratio=t0_ratio, clamp=True)
        bank = bank_part(content, steps=steps, t0_ratio=t0_ratio, clamp=True)
        spec = save_base(folder, spec, {"content_bank": bank})
        for name in (*spec.files, "base.json"):
            out.upload_file(folder / name, name)


def _bank_photos(flags: TrainBaseFlags, recipe: Recipe, images: Storage, rows: list[Row]) -> torch.Tensor:
    source = Storage.open(flags.bank_images) if flags.bank_images else images
    names = source.list_files() if flags.bank_images else [row["file"] for row in rows]
    squares = [fit(decode_image(source.read_bytes(name)), recipe.image_size)[0] for name in names[: recipe.bank_size]]
    return torch.stack([to_tensor(square) for square in squares])


if __name__ == "__main__":
    run_job(main)
