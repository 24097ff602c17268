"""Measure a base: ``python jobs/base_report.py --base DIR --images DIR --table labels.csv --out DIR``."""

import json
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from safetensors.torch import load as load_tensors
from torch import Tensor
from torchvision.utils import make_grid

from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, OutputUri, Uri, parse_flags, run_job
from cluster.commandline.problems import Problems
from cluster.runtime.run_record import run_record
from cluster.storage import NotFound, Storage
from jobs.pretraining.recipes import read_recipe
from jobs.pretraining.tables import Row, list_images, read_table
from jobs.shared.bases import open_base
from osasis.base import Base
from osasis.content import draw_photos
from osasis.errors import BaseError, ImageRejected, OsasisError
from osasis.image import decode_image, encode_png, fit, pixels_to_tensor, to_image
from osasis.networks.diffae import DiffAE
from osasis.noise import starting_noise
from osasis.pretrain.clip import evaluate
from osasis.pretrain.distortions import mean_squares, two_alternative
from osasis.pretrain.measures import frechet_distance, psnr, round_trips
from osasis.pretrain.recipe import Recipe
from osasis.pretrain.samples import photo_prior_samples
from osasis.seeding import generator

console = Console(highlight=False, soft_wrap=True)
_COLUMNS = 16
"""Most photographs shown in the grid of round trips."""


class DataFlags(JobFlags):
    """Photographs that the base was not trained on."""

    images: Uri = Field(description="Folder or prefix of images.")
    table: Uri | None = Field(
        None, description="CSV with a column file (relative to --images); its labels are used for CLIP's figures."
    )
    split: str | None = Field(
        "dev", description="Only rows of the table with this value in column split; an empty value takes all."
    )


class WeightsFlags(JobFlags):
    """What is measured."""

    base: Uri = Field(description="Base: bundled name or URI.")
    diffae: Uri | None = Field(
        None,
        description="Weights of a DiffAE instead of the base's, such as .work/parts/diffae.safetensors of a training.",
    )
    recipe: Uri | None = Field(
        None,
        description="Recipe those weights were trained by: name or file; default: networks of the base's sizes.",
    )
    device: str = Field("cuda" if torch.cuda.is_available() else "cpu", description="Where the networks run.")


class ReportFlags(JobFlags):
    """How much is measured, and where the report goes."""

    out: OutputUri = Field(description="Where report and pictures go.")
    count: int = Field(
        64, gt=0, description="Photographs that make round trips; CLIP and the distortion test use every row."
    )
    full: int = Field(
        32, ge=0, description="How many of them make the full one of 200 steps, the slowest part; whole batches."
    )
    samples: int = Field(64, ge=2, description="Pictures drawn from latent prior and DiffAE.")
    prior_samples: int = Field(16, ge=0, description="Pictures drawn from the photo prior.")
    batch_size: int = Field(16, gt=0, description="Pictures per batch.")
    seed: int = Field(0, description="Seed of noise, samples and the choice of photographs.")


class BaseReportFlags(WeightsFlags, DataFlags, ReportFlags):
    """Measure a base on photographs it was not trained on: figures as a table and report.json, pictures as grids.

    round_trips.png has four rows: photographs; encoded to t0 and back; encoded to noise and back; decoded from z_sem
    and random noise. samples.png and photo_prior.png are not cherry-picked. Runs in this process, without Ray.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--base mini64 --images faces --table labels.csv --out report",
        "--base bases/faces64 --diffae bases/faces64/.work/parts/diffae.safetensors --images faces --out out --full 0",
    )


def main() -> int:
    flags = parse_flags(BaseReportFlags, further=resolve)
    out = Storage.open(flags.out)
    storage, rows, base = resolve(flags)
    console.print(f"base {base.spec.name} ({base.fingerprint}) on {len(rows)} photographs → {out}")
    if flags.dry_run:
        return ExitCode.DONE
    out.check_writable()
    with run_record(out, job="base_report", config=flags.model_dump(mode="json")) as record:
        rows, images = _read(storage, rows, base.image_size)
        figures: dict[str, float] = {}
        for name, measure in _MEASURES.items():
            started = time.monotonic()
            try:
                figures |= measure(base, rows, images, flags, out)
            except BaseError as error:
                console.print(f"[yellow]left out[/yellow] {name}: {error}")
            record.timings[name] = round(time.monotonic() - started, 1)
            console.print(f"{name}: {record.timings[name]:.0f} s")
        report: dict[str, object] = {"base": base.spec.name, "fingerprint": base.fingerprint, "diffae": flags.diffae}
        report |= {"photographs": len(rows), "config": flags.model_dump(mode="json"), "figures": figures}
        out.write_bytes("report.json", json.dumps(report, indent=2).encode())
    console.print(_table(figures))
    return ExitCode.DONE


def resolve(flags: BaseReportFlags) -> tuple[Storage, list[Row], Base]:
    """(the photographs' place, their rows, the base); reads, and writes nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(OsasisError, RuntimeError)
    attempt = problems.attempt
    storage, table, diffae = Storage.open(flags.images), flags.table, flags.diffae
    rows = attempt(
        "--table" if table else "--images",
        lambda: read_table(storage, Storage.open(table), flags.split or None) if table else list_images(storage),
    )
    base = attempt("--base", lambda: open_base(flags.base, flags.device))
    recipe = attempt("--recipe", lambda: read_recipe(flags.recipe, {}) if flags.recipe else None)
    if base and diffae:
        attempt("--diffae", lambda: _take_weights(base, diffae, recipe))
    if problems or rows is None or base is None:
        raise ConfigError(problems)
    return storage, rows, base


def _take_weights(base: Base, uri: str, recipe: Recipe | None) -> None:
    network = DiffAE(recipe.unet, recipe.encoder) if recipe else base.diffae
    tensors = load_tensors(Storage.open(uri).read_bytes())
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    base.diffae = network.eval().requires_grad_(False).to(base.device).to(memory_format=torch.channels_last)


def _read(storage: Storage, rows: list[Row], size: int) -> tuple[list[Row], np.ndarray]:
    """Rows whose image can be read, and their centre-cropped squares uint8 [N, S, S, 3]."""
    kept, squares = [], []
    for row in rows:
        try:
            squares.append(np.asarray(fit(decode_image(storage.read_bytes(row["file"])), size)[0]))
            kept.append(row)
        except (ImageRejected, NotFound) as error:
            console.print(f"[yellow]left out[/yellow] {row['file']}: {error}")
    if len(kept) < 2:
        raise OsasisError(f"{storage} has fewer than two usable images")
    return kept, np.stack(squares)


def _journeys(
    base: Base, rows: list[Row], images: np.ndarray, flags: BaseReportFlags, out: Storage
) -> dict[str, float]:
    """Round trips in decibels, and how far z_sem alone leads, beside another photograph's distance."""
    chosen = np.random.default_rng(flags.seed).permutation(len(images))[: flags.count]
    photos = torch.stack([pixels_to_tensor(images[i]) for i in chosen]).to(base.device)
    noise = torch.cat([_noise(base, flags.seed, "z alone", rows[i]["file"]) for i in chosen])
    ends: dict[str, list[Tensor]] = {"t0": [], "full": [], "z": []}
    for start in range(0, len(photos), flags.batch_size):
        part = slice(start, start + flags.batch_size)
        journey = round_trips(base, photos[part], noise[part], full=start < flags.full)
        for name, pictures in journey.items():
            ends[name].append(pictures)
    back = {name: torch.cat(parts) for name, parts in ends.items() if parts}
    columns = min(_COLUMNS, *map(len, back.values()))
    shown = [photos, *(back[name] for name in ("t0", "full", "z") if name in back)]
    _write_grid(out, "round_trips.png", torch.cat([pictures[:columns] for pictures in shown]), columns)
    figures = {
        f"round trip/{name}, dB": psnr(pictures, photos[: len(pictures)]).mean().item()
        for name, pictures in back.items()
    }
    if base.spec.perceptual is not None:
        others = photos.roll(1, 0)
        figures["z alone/perceptual distance"] = base.perceptual(back["z"], photos).mean().item()
        figures["z alone/another photograph's distance"] = base.perceptual(others, photos).mean().item()
    return figures


def _samples(base: Base, rows: list[Row], images: np.ndarray, flags: BaseReportFlags, out: Storage) -> dict[str, float]:
    """Pictures from latent prior and DiffAE, and their Fréchet distance to the photographs on CLIP's embeddings."""
    _, mean, _ = base.latent_prior
    drawn = []
    for start in range(0, flags.samples, flags.batch_size):
        count = min(flags.batch_size, flags.samples - start)
        rng = generator(flags.seed, "samples", start)
        noise = starting_noise(base.spec.unet, count, rng).to(base.device)
        drawn.append(draw_photos(base, noise, torch.randn(count, len(mean), generator=rng).to(base.device), steps=50))
    pictures = torch.cat(drawn).clamp(-1, 1)
    _write_grid(out, "samples.png", pictures, 8)
    if base.spec.clip is None:
        return {}
    photos = _embedded(base, pixels_to_tensor(np.stack(list(images))))
    half = len(photos) // 2
    return {
        "Fréchet/samples": frechet_distance(_embedded(base, pictures), photos),
        "Fréchet/one half of the photographs to the other": frechet_distance(photos[:half], photos[half:]),
    }


def _photo_prior(
    base: Base, rows: list[Row], images: np.ndarray, flags: BaseReportFlags, out: Storage
) -> dict[str, float]:
    """Pictures of the photo prior; nothing is measured on so few."""
    if flags.prior_samples:
        pictures = photo_prior_samples(base.photo_prior, flags.prior_samples, generator(flags.seed, "photo prior"))
        _write_grid(out, "photo_prior.png", pictures, 8)
    return {}


def _clip(base: Base, rows: list[Row], images: np.ndarray, flags: BaseReportFlags, out: Storage) -> dict[str, float]:
    """Zero-shot and retrieval; without labels there is only the medium."""
    view_size = min(base.image_size, base.clip.image_size)  # no larger than the pictures it will be shown
    return {f"CLIP/{name}": value for name, value in evaluate(base.clip, images, rows, view_size).items()}


def _distortions(
    base: Base, rows: list[Row], images: np.ndarray, flags: BaseReportFlags, out: Storage
) -> dict[str, float]:
    """Whether the perceptual distance orders distortions as people would, beside L2."""

    def perceptual(a: Tensor, b: Tensor) -> Tensor:
        return base.perceptual(a.to(base.device), b.to(base.device)).cpu()

    shares = two_alternative({"perceptual": perceptual, "L2": mean_squares}, images, flags.seed)
    return {f"distortions/{name}": share for name, share in shares.items()}


_MEASURES: dict[str, Callable[[Base, list[Row], np.ndarray, BaseReportFlags, Storage], dict[str, float]]] = {
    "round trips": _journeys,
    "samples": _samples,
    "photo prior": _photo_prior,
    "CLIP": _clip,
    "distortions": _distortions,
}


def _embedded(base: Base, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([base.clip.encode_image(part.to(base.device)).cpu() for part in pictures.split(128)])


def _noise(base: Base, *key: object) -> Tensor:
    return starting_noise(base.spec.unet, 1, generator(*key)).to(base.device)


def _write_grid(out: Storage, name: str, pictures: Tensor, columns: int) -> None:
    out.write_bytes(name, encode_png(to_image(make_grid(pictures.cpu().clamp(-1, 1), columns, pad_value=1.0))))


def _table(figures: dict[str, float]) -> Table:
    """Each figure with what it must be compared with in its row: majority, chance, L2, …"""
    table = Table("measure", "value", "beside")
    compared = {other for name in figures for other in _beside(name).values() if other != name}
    for name, value in figures.items():
        if name not in compared:
            beside = {label: other for label, other in _beside(name).items() if other in figures and other != name}
            table.add_row(
                name, f"{value:.3f}", ", ".join(f"{label} {figures[other]:.3f}" for label, other in beside.items())
            )
    return table


def _beside(name: str) -> dict[str, str]:
    """Label → name of each figure that a figure is compared with."""
    return {
        **{label: f"{name}/{label}" for label in ("majority", "balanced", "chance")},
        "L2": name.replace("/perceptual", "/L2") if name.startswith("distortions") else name,
        "another photograph": name.replace("/perceptual distance", "/another photograph's distance"),
        "halves of the photographs": name.replace("/samples", "/one half of the photographs to the other"),
    }


def command() -> None:
    """The job as a console script."""
    run_job(main)


if __name__ == "__main__":
    command()
