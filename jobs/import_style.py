"""Bring a style checkpoint of the official release into the catalog."""

import hashlib
from importlib.metadata import version
from typing import ClassVar

from PIL import Image
from pydantic import Field
from rich.console import Console

from catalog.probes import PROBE_SET
from catalog.schema import NewStyle, StyleId, Tag
from catalog.store import StyleCatalog
from catalog.style_folder import CHECKPOINT, PHOTO, PREVIEW, REFERENCE, StyleFolder
from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, OutputUri, Uri, parse_flags, run_job
from cluster.commandline.problems import Problems
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.shared.bases import locate_base, open_base
from jobs.shared.previews import make_preview
from osasis.base import Base, clip_fingerprint
from osasis.checkpoint import FORMAT, load_style
from osasis.errors import OsasisError
from osasis.full_size import texture_of, whole_reference
from osasis.image import FitMode, decode_image, encode_png, fit, to_tensor
from osasis.importers.style import OfficialStyle, read_style, style_file
from osasis.precision import choose_device

console = Console(highlight=False, soft_wrap=True)


class SourceFlags(JobFlags):
    """The release's checkpoint, and what it was trained from."""

    base: Uri = Field(description="The base it was trained from: bundled name or URI.")
    checkpoint: Uri = Field(description="The release's checkpoint.")
    image: Uri = Field(description="The reference picture it was trained on.")
    photo: Uri | None = Field(None, description="The reference's photographic counterpart, stored with the style.")
    fit: FitMode = Field("squash", description="How the picture becomes square; the release squashes it.")
    device: str | None = Field(None, description="Where networks run; default: the first GPU, or else the CPU.")


class EntryFlags(JobFlags):
    """The style's entry in the catalog."""

    storage: OutputUri = Field(description="Where the catalog is.")
    id: StyleId = Field(description="Id of the style: lowercase letters, digits and hyphens.")
    tags: list[Tag] = Field([], description="Tags to select the style by.")
    notes: str = Field("", description="Free text.")
    license: str = Field("", description="Terms of the reference picture.")
    preview: bool = Field(
        False, description="Stylize the catalog's eight portraits for the gallery; slow without a GPU."
    )


class ImportStyleFlags(EntryFlags, SourceFlags):
    """Import a style checkpoint of the official release (iter_200.pt) into the catalog.

    The base must be the one that the style was trained from, imported by import_base. Weights stay in float32. Nothing
    in the file is executed.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--storage runs/mine --base bases/ffhq256 --id monet --checkpoint iter_200.pt --image monet.jpg",
        "--storage s3://bucket/styles --base s3://bucket/bases/ffhq256 --id monet --checkpoint iter_200.pt "
        "--image monet.jpg --preview --device cuda",
    )


def main() -> int:
    flags = parse_flags(ImportStyleFlags, further=_read)
    storage = Storage.open(flags.storage)
    base, official, picture, image_sha256, checkpoint_sha256 = _read(flags)
    reference = to_tensor(fit(picture, base.image_size, flags.fit)[0])[None].to(base.device)
    identity = f"{base.fingerprint} {checkpoint_sha256} {image_sha256} {flags.fit}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = StyleFolder.of(storage, flags.id, key)
    form = "with time" if official.config().spn == "time" else "plain"
    console.print(f"{flags.id}: {official.iterations} iterations, SPN {form}, base {base.spec.name} → {folder}")
    if flags.dry_run:
        return ExitCode.DONE
    storage.check_writable()
    catalog = StyleCatalog.open(storage)
    if known := catalog.find(flags.id, folder.checkpoint_uri):
        console.print(f"{known} is in the catalog already; nothing to do.")
        return ExitCode.DONE
    with run_record(storage, job="import_style", config=flags) as record:
        data = style_file(official, base, reference, flags.id, texture_of(picture, base.image_size, flags.fit))
        whole = whole_reference(picture, base.image_size, flags.fit)
        uris = {"reference_uri": folder.write(REFERENCE, encode_png(whole))}
        if flags.photo:
            photo = fit(decode_image(Storage.open(flags.photo).read_bytes()), base.image_size, flags.fit)[0]
            uris["photo_uri"] = folder.write(PHOTO, encode_png(photo))
        uris["checkpoint_uri"] = folder.write(CHECKPOINT, data)
        if flags.preview:
            with record.timed("preview"):
                style = load_style(fetch(folder.checkpoint_uri), base)
                uris["preview_uri"] = folder.write(PREVIEW, make_preview(style, base).png())
        embedded = base.spec.clip is not None
        row = catalog.register(
            NewStyle(
                **uris,
                style_id=flags.id,
                base_name=base.spec.name,
                base_fingerprint=base.fingerprint,
                checkpoint_sha256=hashlib.sha256(data).hexdigest(),
                checkpoint_bytes=len(data),
                checkpoint_format=FORMAT,
                preset="official",
                train_config=official.config().model_dump(mode="json"),
                reference_sha256=image_sha256,
                probe_set=PROBE_SET if flags.preview else None,
                clip_embedding=base.clip.encode_image(reference)[0].tolist() if embedded else None,
                clip_encoder=clip_fingerprint(base.spec),
                tags=list(flags.tags),
                notes=flags.notes,
                license=flags.license,
                run_id=record.run_id,
                train_seconds=0,
                device=str(base.device),
                software={"torch": version("torch")},
            )
        )
        record.counts["registered"] = 1
    console.print(f"[green]{row}[/green] registered")
    return ExitCode.DONE


def _read(flags: ImportStyleFlags) -> tuple[Base, OfficialStyle, Image.Image, str, str]:
    """(base, style, reference, its sha256, the checkpoint's sha256).

    Raises:
        ConfigError: with every file that is missing or cannot be imported.
    """
    problems = Problems(OsasisError)
    attempt = problems.attempt
    device = attempt("--device", lambda: str(choose_device(flags.device)))
    base = attempt("--base", lambda: open_base(locate_base(flags.base), device or "cpu"))
    image = attempt("--image", lambda: Storage.open(flags.image).read_bytes())
    picture = image and attempt("--image", lambda: decode_image(image))
    if photo := flags.photo:
        attempt("--photo", lambda: decode_image(Storage.open(photo).read_bytes()))
    path = attempt("--checkpoint", lambda: fetch(flags.checkpoint))
    official = attempt("--checkpoint", lambda: read_style(path, base)) if path and base else None
    if problems or not (base and image and picture and path and official):
        raise ConfigError(problems)
    return base, official, picture, hashlib.sha256(image).hexdigest(), Storage.open(path).sha256()


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(OsasisError,))


if __name__ == "__main__":
    command()
