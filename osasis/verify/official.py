"""The files of the release in their own formats: what the importers read must be the golden weights."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from osasis.errors import OsasisError
from osasis.importers.diffae import read_diffae, read_latent_stats
from osasis.importers.photo_prior import read_photo_prior
from osasis.networks.encoder import EncoderConfig
from osasis.networks.unet import UNetConfig
from osasis.verify.folder import OPTIONAL, FolderError, GoldenFolder
from osasis.verify.networks import GoldenBase, PhotoPrior
from osasis.verify.report import Report


def compare_official(folder: GoldenFolder, base: GoldenBase, prior: PhotoPrior, report: Report) -> None:
    """``last.ckpt`` (its EMA weights), ``latent.pkl`` and the photo prior's file, found by name below ``official/``.

    The style checkpoints there are compared with inference.
    """
    root = folder.path / OPTIONAL
    if not root.is_dir():
        report.absent.append(f"{OPTIONAL}/")
        return
    try:
        for path in _files(root, "last.ckpt"):
            _compare_diffae(path, folder, base, report)
        for path in _files(root, "latent.pkl"):
            name, stats = str(path.relative_to(folder.path)), folder.tensors("samplers.safetensors")
            mean, std = read_latent_stats(path, base.diffae.encoder.config.out_channels)
            report.compare(name, "conds_mean", mean, stats["conds_mean"])
            report.compare(name, "conds_std", std, stats["conds_std"])
        for path in _files(root, "*p2*.pt"):
            _compare_photo_prior(path, folder, prior, report)
    except FolderError:
        raise
    except OsasisError as error:
        raise FolderError(str(error)) from None


def _files(root: Path, pattern: str) -> list[Path]:
    found = sorted(root.rglob(pattern))
    if not found:
        raise FolderError(f"{root}: there is no {pattern}")
    return found


def _compare_diffae(path: Path, folder: GoldenFolder, base: GoldenBase, report: Report) -> None:
    name = str(path.relative_to(folder.path))
    unet, encoder, latent = base.diffae.unet.config, base.diffae.encoder.config, base.latent_prior[0].config
    unseen = {"num_heads": unet.num_heads, "head_channels": unet.head_channels, "qkv_first": unet.qkv_first}
    given = {
        "unet": unseen,
        "encoder": unseen | {"num_res_blocks": encoder.num_res_blocks, "channel_mult": encoder.channel_mult},
        "latent_prior": latent.model_dump(include={"activation", "condition_bias", "time_last_act"}),
    }
    networks = read_diffae(path, image_size=unet.image_size, given=given)
    for ours, theirs in ((unet, networks.unet), (encoder, networks.encoder)):
        _compare_config(name, ours, theirs, report)
    if networks.latent_prior is None:
        raise FolderError(f"{path} has no latent net")
    _compare_tensors(name, base.diffae.state_dict(), networks.diffae, report)
    _compare_tensors(name, base.latent_prior[0].state_dict(), networks.latent, report)


def _compare_photo_prior(path: Path, folder: GoldenFolder, prior: PhotoPrior, report: Report) -> None:
    name, config = str(path.relative_to(folder.path)), prior.network.config
    unseen = config.model_dump(include={"num_heads", "num_heads_up", "head_channels", "qkv_first"})
    read, tensors = read_photo_prior(path, config.image_size, given=unseen | {"head_channels": config.head_channels})
    _compare_config(name, config, read, report)
    _compare_tensors(name, prior.network.state_dict(), tensors, report)


def _compare_config(
    file: str, golden: UNetConfig | EncoderConfig, read: UNetConfig | EncoderConfig, report: Report
) -> None:
    """What the importer infers is what ``meta.json`` says; sizes that get attention are compared where they occur."""

    def shape(config: UNetConfig | EncoderConfig) -> dict[str, object]:
        values = config.model_dump(exclude={"dropout"})
        sizes = {config.image_size >> level for level in range(len(config.channel_mult))}
        return values | {"attention_resolutions": sizes & set(config.attention_resolutions)}

    ours, theirs = shape(golden), shape(read)
    for field in ours.keys() | theirs.keys():
        equal = ours.get(field) == theirs.get(field)
        report.add(file, f"configuration.{field}", 0.0 if equal else float("inf"), 0.0 if equal else float("inf"))


def _compare_tensors(file: str, golden: Mapping[str, Tensor], read: Mapping[str, Tensor], report: Report) -> None:
    for name, tensor in golden.items():
        report.compare(file, name, read[name], tensor)
