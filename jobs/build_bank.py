"""Give a base its content bank: ``python jobs/build_bank.py --base URI``."""

import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from rich.console import Console

from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, OutputUri, Problem, Uri, parse_flags, run_job
from cluster.runtime.run_record import run_record
from cluster.storage import Storage, StorageError
from jobs.finetuning.plan import read_photos
from jobs.shared.bases import describe_base, open_base
from osasis.base import Base, bundled_bases, fingerprint, save_base
from osasis.content import bank_part
from osasis.errors import OsasisError
from osasis.image import decode_image, fit, to_tensor
from osasis.precision import choose_device
from osasis.settings import Preset, TrainConfig, train_config
from osasis.style_training import training_content

console = Console(highlight=False, soft_wrap=True)
BANK = "content_bank.safetensors"


class BuildBankFlags(JobFlags):
    """Encode a base's content photographs once, for all its styles, and keep them in the base.

    They are drawn from its latent prior, or are those of a folder. The base keeps its fingerprint, and its styles.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--base s3://bucket/bases/ffhq256 --device cuda",
        "--base bases/garments --photos s3://bucket/garments --count 128",
    )

    base: OutputUri = Field(description="The base: a folder or URI that can be written.")
    photos: Uri | None = Field(None, description="Folder of photographs; default: drawn from the latent prior.")
    count: int = Field(64, gt=0, description="Photographs taken (the first by name) or drawn.")
    preset: Preset = Field("official", description="Of the trainings that the bank is for: their encoding differs.")
    replace: bool = Field(False, description="Replace the bank that the base has.")
    device: str | None = Field(None, description="Where networks run; default: the first GPU, or else the CPU.")


def main() -> int:
    flags = parse_flags(BuildBankFlags)
    if flags.base in bundled_bases():
        raise ConfigError(Problem("--base", f"{flags.base} comes with the package", "copy its folder, and give that"))
    try:
        location, spec = describe_base(flags.base)
        device = choose_device(flags.device)
        content = {"photos": flags.photos, "count": flags.count, "source": "prior"}
        config = train_config(flags.preset, spec.train_defaults, {"content": content})
        photos = [*read_photos(config.content)] if flags.photos else []
    except (OsasisError, StorageError, ValueError) as error:
        raise ConfigError(Problem("command line", str(error))) from None
    if spec.latent_prior is None and not photos:
        raise ConfigError(Problem("--base", f"{spec.name} has no latent prior to draw from", "give --photos"))
    storage = Storage.open(location)
    if BANK in spec.files and not flags.replace:
        console.print(f"{storage} has a content bank already; nothing to do. To replace it, give --replace.")
        return ExitCode.DONE
    console.print(f"{spec.name} ({fingerprint(spec)}): {len(photos) or flags.count} photographs → {storage}")
    if flags.dry_run:
        return ExitCode.DONE
    storage.check_writable()
    with run_record(storage.child(".work"), job="build_bank", config=flags) as record, record.timed("encode"):
        base = open_base(location, str(device))
        part = _bank(base, config, photos)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            save_base(folder, spec, {"content_bank": part})
            for name in (BANK, "base.json"):  # the spec last: it tells the bank's sha256
                storage.upload_file(folder / name, name)
        record.counts["photos"] = len(part["photos"])
    console.print(f"[green]{len(part['photos'])} photographs are in the content bank of {storage}[/green]")
    return ExitCode.DONE


def _bank(base: Base, config: TrainConfig, uris: list[str]) -> dict[str, torch.Tensor]:
    squares = [fit(decode_image(Storage.open(uri).read_bytes()), base.image_size, config.fit)[0] for uri in uris]
    photos = torch.stack([to_tensor(square) for square in squares]) if squares else None
    content = training_content(base, config, photos)
    return bank_part(content, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=config.clamp)


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(OsasisError,))


if __name__ == "__main__":
    command()
