"""A base bundle from the release's files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from osasis.base import BaseSpec, Provenance
from osasis.errors import ForeignFile
from osasis.importers.clip import read_clip
from osasis.importers.diffae import read_diffae, read_latent_stats
from osasis.importers.perceptual import read_perceptual
from osasis.importers.photo_prior import read_photo_prior

T = TypeVar("T")
Parts = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class OfficialFiles:
    """Where the files are; what is None or empty is absent from the bundle.

    ``clips``: (open_clip name or None, file), the first being the bundle's main one; ``perceptual``: the main one is
    VGG, or else the first. ``given``: fields of the networks' configurations that no tensor shows, by part.
    """

    diffae: Path
    latent_stats: Path | None = None
    photo_prior: Path | None = None
    clips: Sequence[tuple[str | None, Path]] = ()
    perceptual: Sequence[Path] = ()
    image_size: int | None = None
    head_channels: int | None = 64
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_bundle(
    files: OfficialFiles,
    name: str,
    *,
    style_levels: tuple[int, ...] | None = None,
    provenance: Provenance | None = None,
) -> tuple[BaseSpec, Parts]:
    """The spec (without checksums) and the weights of every part that was given.

    Raises:
        ExceptionGroup: of ForeignFile, one for each file that is wrong.
    """
    wrong: list[ForeignFile] = []

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except ForeignFile as error:
            wrong.append(error)
            return None

    networks = attempt(lambda: read_diffae(files.diffae, image_size=files.image_size, given=files.given))
    stats, photo = None, None
    if networks and files.latent_stats:
        path, channels = files.latent_stats, networks.encoder.out_channels
        stats = attempt(lambda: read_latent_stats(path, channels))
        if networks.latent_prior is None:
            wrong.append(
                ForeignFile(f"{files.diffae} has no latent net for the statistics: give the …_latent checkpoint")
            )
    if networks and files.photo_prior:
        path, size = files.photo_prior, networks.unet.image_size
        given = files.given.get("photo_prior")
        photo = attempt(lambda: read_photo_prior(path, size, head_channels=files.head_channels, given=given))
    clips = [attempt(lambda label=label, path=path: read_clip(path, label)) for label, path in files.clips]  # type: ignore[misc]
    distances = [attempt(lambda path=path: read_perceptual(path)) for path in files.perceptual]  # type: ignore[misc]
    if wrong or networks is None:
        raise ExceptionGroup("files that cannot be imported", wrong)

    parts: Parts = {"diffae": networks.diffae}
    fields: dict[str, Any] = {}
    if stats:
        parts["latent_prior"] = networks.latent | {"conds_mean": stats[0], "conds_std": stats[1]}
        fields["latent_prior"] = networks.latent_prior
    if photo:
        fields["photo_prior"], parts["photo_prior"] = photo
    _add(fields, parts, "clip", {config.name or "": (config, tensors) for config, tensors in filter(None, clips)})
    by_net = {config.net: (config, tensors) for config, tensors in filter(None, distances)}
    _add(fields, parts, "perceptual", dict(sorted(by_net.items(), key=lambda item: item[0] != "vgg")))
    spec = BaseSpec(
        name=name,
        image_size=networks.unet.image_size,
        unet=networks.unet,
        encoder=networks.encoder,
        style_levels=style_levels or official_levels(len(networks.unet.channel_mult)),
        provenance=provenance or Provenance(),
        **fields,
    )
    return spec, parts


def official_levels(count: int) -> tuple[int, ...]:
    """The levels that z_style conditions: the release takes the upper four of six."""
    return tuple(range(max(1, 2 * count // 3)))


def _add(fields: dict[str, Any], parts: Parts, part: str, found: Mapping[str, tuple[Any, dict[str, Tensor]]]) -> None:
    """The first becomes the bundle's main ``part``; the others are stored under their names."""
    for i, (name, (config, tensors)) in enumerate(found.items()):
        if i == 0:
            fields[part], parts[part] = config, tensors
        else:
            fields.setdefault(f"more_{part}", {})[name] = config
            parts[f"{part}-{name}"] = tensors
