"""Make a base bundle from the official release's files."""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from cluster.commandline.cli import (
    ConfigError,
    ExitCode,
    JobFlags,
    OutputUri,
    Problem,
    Uri,
    load_yaml,
    parse_flags,
    run_job,
)
from cluster.commandline.problems import Problems
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.shared.bases import describe_base
from osasis.base import BaseSpec, Provenance, fingerprint, load_base, save_base
from osasis.errors import BaseError
from osasis.importers.bundle import OfficialFiles, Parts, read_bundle

console = Console(highlight=False, soft_wrap=True)


class Given(BaseModel):
    """The file of --config: settings of the networks that no tensor shows."""

    model_config = ConfigDict(extra="forbid")

    unet: dict[str, Any] = {}
    encoder: dict[str, Any] = {}
    latent_prior: dict[str, Any] = {}
    photo_prior: dict[str, Any] = {}


class ReleaseFlags(JobFlags):
    """The release's files, and what their tensors do not show."""

    diffae: Uri = Field(description="DiffAE's Lightning checkpoint, such as ffhq256_autoenc_latent/last.ckpt.")
    latent_stats: Uri | None = Field(None, description="latent.pkl; without it the bundle has no latent prior.")
    photo_prior: Uri | None = Field(None, description="The unconditional DDPM, such as ffhq_p2.pt.")
    photo_prior_head_channels: int = Field(64, gt=0, description="Channels of each of its attention heads.")
    clip: list[str] = Field(
        [], description="CLIP weights of OpenAI or open_clip, as FILE or NAME=FILE with open_clip's model name."
        " The first is the base's main one; more can join the losses."
    )  # fmt: skip
    perceptual: list[str] = Field([], description="torchvision's VGG16 or AlexNet weights, for LPIPS.")
    image_size: int | None = Field(None, gt=0, description="Side in pixels, where the checkpoint does not tell.")
    style_levels: tuple[int, ...] | None = Field(
        None,
        description="UNet levels conditioned on z_style; default: the finest two thirds, as the release's 0 to 3 of 6.",
    )
    config: Uri | None = Field(
        None,
        description="YAML or JSON with settings that no tensor shows: tables unet, encoder, latent_prior, photo_prior.",
    )


class BundleFlags(JobFlags):
    """The base bundle that is made."""

    name: str = Field(description="Name of the base: lowercase letters, digits and hyphens.")
    out: OutputUri = Field(description="Where the bundle goes.")
    license: str = Field("", description="Terms under which the bundle may be used; written to base.json.")
    data: str = Field("", description="What it was trained on; written to base.json.")


class ImportBaseFlags(BundleFlags, ReleaseFlags):
    """Make a base bundle from the official release's files: DiffAE, photo prior, CLIP, LPIPS backbones.

    Configurations are read from the tensors. EMA weights are taken and kept in float32, bit for bit. A part that is
    not given is absent from the bundle, and jobs that need it say so. Nothing in the files is executed: of the pickles,
    only plain data is read. If a file cannot be imported, it is named with the reason and nothing is written.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--name ffhq256 --out bases/ffhq256 --diffae last.ckpt --latent-stats latent.pkl --photo-prior ffhq_p2.pt "
        "--clip ViT-B-32.pt --perceptual vgg16.pth",
        "--name ffhq256 --out s3://bucket/bases/ffhq256 --diffae last.ckpt --dry-run",
    )


def main() -> int:
    flags = parse_flags(ImportBaseFlags)
    out = Storage.open(flags.out)
    spec, parts = _read(flags)
    _print_plan(flags, spec, parts)
    if flags.dry_run:
        return ExitCode.DONE
    out.check_writable()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = save_base(folder, spec, parts, exact=True)
        if _already_there(out, spec):
            console.print(f"{out} already holds this base; nothing to do.")
            return ExitCode.DONE
        load_base(folder, check=False)
        with run_record(out.child(".work"), job="import_base", config=flags) as record:
            with record.timed("upload"):
                for name in (*spec.files, "base.json"):  # the spec last: a bundle is there when it is whole
                    out.upload_file(folder / name, name)
            record.counts["parts"] = len(parts)
    console.print(f"[green]Base {flags.name} ({fingerprint(spec)}) is in {out}[/green]")
    return ExitCode.DONE


def _read(flags: ImportBaseFlags) -> tuple[BaseSpec, Parts]:
    """The bundle; every file that is missing or wrong is a problem of its flag."""
    problems = Problems()
    config = flags.config
    given = problems.attempt("--config", lambda: load_yaml(config, Given)) if config else None

    def local(flag: str, uri: str) -> Path:
        return problems.attempt(flag, lambda: fetch(uri)) or Path(uri)

    named = [item.rpartition("=") for item in flags.clip]
    files = OfficialFiles(
        diffae=local("--diffae", flags.diffae),
        latent_stats=local("--latent-stats", flags.latent_stats) if flags.latent_stats else None,
        photo_prior=local("--photo-prior", flags.photo_prior) if flags.photo_prior else None,
        clips=[(name or None, local("--clip", path)) for name, _, path in named],
        perceptual=[local("--perceptual", path) for path in flags.perceptual],
        image_size=flags.image_size,
        head_channels=flags.photo_prior_head_channels,
        given=(given or Given()).model_dump(),
    )
    problems.check()
    provenance = Provenance(made_by="jobs/import_base.py", data=flags.data, license=flags.license)
    try:
        return read_bundle(files, flags.name, style_levels=flags.style_levels, provenance=provenance)
    except ExceptionGroup as error:
        raise ConfigError([Problem("import", str(wrong)) for wrong in error.exceptions]) from None
    except ValueError as error:
        raise ConfigError(Problem("--name", str(error))) from None


def _print_plan(flags: ImportBaseFlags, spec: BaseSpec, parts: Parts) -> None:
    table = Table("part", "parameters", "configuration", title=f"base {spec.name}, {spec.image_size} px → {flags.out}")
    for part, tensors in parts.items():
        main, _, name = part.partition("-")
        config = getattr(spec, f"more_{main}")[name] if name else getattr(spec, main, None) or spec.unet
        shown = ", ".join(f"{k} {v}" for k, v in config.model_dump(exclude_none=True, exclude_defaults=True).items())
        table.add_row(part, f"{sum(t.numel() for t in tensors.values()):,}", shown)
    console.print(table)
    absent = [part for part in ("latent_prior", "photo_prior", "clip", "perceptual") if part not in parts]
    if absent:
        console.print(f"Not given, so absent from the bundle: {', '.join(absent)}. Jobs that need them will say so.")


def _already_there(out: Storage, spec: BaseSpec) -> bool:
    """Whether the output already holds this base.

    Raises:
        ConfigError: another one is.
    """
    if not out.exists("base.json"):
        return False
    try:
        _, there = describe_base(out.uri)
    except BaseError as error:
        raise ConfigError(Problem("--out", str(error))) from None
    there_files = {name: digest for name, digest in there.files.items() if name != "content_bank.safetensors"}
    there = there.model_copy(update={"files": there_files})  # a bank may have been added since
    if there.model_dump(exclude={"provenance"}) != spec.model_dump(exclude={"provenance"}):
        hint = "give another --out, or remove that one"
        raise ConfigError(Problem("--out", f"holds another base: {there.name} ({fingerprint(there)})", hint))
    return True


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(BaseError,))


if __name__ == "__main__":
    command()
