"""The release's whole finetuning and its inference, from the folder's random draws."""

import math
import re
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style, StyleHeader
from osasis.content import Content, draw_photos, encode_content
from osasis.errors import OsasisError
from osasis.finetune import EncodeImage, Finetuner, make_reference
from osasis.importers.diffae import split_weights
from osasis.importers.style import OfficialStyle, read_style
from osasis.networks.unet import UNet
from osasis.precision import Precision
from osasis.settings import StylizeConfig
from osasis.stylize import encode, encoding_for, stylize
from osasis.verify.folder import OPTIONAL, FolderError, GoldenFolder, Settings
from osasis.verify.networks import GoldenBase, fill, train_settings
from osasis.verify.report import Report

_LOSSES = {
    "cross_dom": "cross_domain", "in_dom": "in_domain", "recon_clip": "recon_clip", "recon_l1": "recon_l1",
    "recon_lpips": "recon_perceptual",
}  # fmt: skip
"""The release's names of the loss terms → ours."""


_CLIP_SIDE = 224


@dataclass(frozen=True)
class Trained:
    finetuner: Finetuner
    style_image: Tensor


class _Recording(Finetuner):
    """Keeps the first and the last predicted x0 of a training."""

    predictions: tuple[Tensor, Tensor] | None = None

    def predict(self, x_t: Tensor, i: int, content: Content) -> tuple[Tensor, Tensor]:
        x0, x_in = super().predict(x_t, i, content)
        self.predictions = (self.predictions[0] if self.predictions else x0.detach(), x0.detach())
        return x0, x_in


def compare_training(
    folder: GoldenFolder, base: GoldenBase, settings: Settings, precision: Precision, report: Report
) -> Trained:
    """The official trainer: losses of every inner step, predictions, final weights."""
    args = settings.table("args")
    settings.ignore("note", "randn_order")
    latent_steps = args.take("T_latent", 200)
    config = train_settings(args, precision)
    g = folder.tensors("training.safetensors")
    like_base = cast(Base, base)
    for name in ("conds_mean", "conds_std"):
        stored = folder.tensors("samplers.safetensors")[name]
        if name in g:
            report.compare(g.name, name, stored, g[name])
    reference = make_reference(like_base, g["style_image"], g["style_photo"], config)
    unet = UNet(base.diffae.unet.config).to(folder.device, folder.dtype)
    unet.load_state_dict(base.diffae.unet.state_dict())
    finetuner = _Recording(unet, reference, config, [toy_clip(g["toy_clip_w"])])
    fill(finetuner.spn, folder.tensors("spn.safetensors").under(f"{config.spn}."), "spn.safetensors")
    losses: list[dict[str, float]] = []
    for i in range(config.iterations):
        photos = draw_photos(
            like_base,
            g[f"randn_{2 * i}"],
            g[f"randn_{2 * i + 1}"],
            steps=config.decode_steps,
            latent_steps=latent_steps,
        )
        last = i == config.iterations - 1
        for name in (f"content_photo_{i}", *(["last_content_photo"] if last else [])):
            if name in g:
                report.compare(g.name, name, photos, g[name])
        content = encode_content(like_base, photos, steps=config.encode_steps, t0_ratio=config.t0_ratio)
        losses += finetuner.iteration(content)
    _compare_losses(settings.take("losses"), losses, finetuner, report)
    assert finetuner.predictions is not None  # an iteration was run
    for when, x0 in zip(("first", "last"), finetuner.predictions, strict=True):
        report.compare(g.name, f"{when}_pred_content", x0[:-1], g[f"{when}_pred_content"])
        report.compare(g.name, f"{when}_pred_style", x0[-1:], g[f"{when}_pred_style"])
    _compare_weights(folder, base, finetuner, report)
    settings.take("args", None)
    report.notes += [f"meta.json: {name} is not known and was ignored" for name in args.close()]
    return Trained(finetuner, g["style_image"])


def toy_clip(weights: Tensor) -> EncodeImage:
    """The stand-in for CLIP with which the golden training was made: pooled pixels, a matrix, tanh.

    It is fed as the release feeds CLIP: enlarged to 224 pixels by nearest neighbours, which other sizes than divisors
    of 224 distort. ``weights`` [3·P², E], for images pooled to P×P.
    """
    side = math.isqrt(weights.shape[0] // 3)

    def encode_image(x: Tensor) -> Tensor:
        fed = F.interpolate(x, (_CLIP_SIDE, _CLIP_SIDE), mode="nearest")
        return torch.tanh(F.adaptive_avg_pool2d(fed, side).flatten(1) @ weights)

    return encode_image


def _compare_losses(golden: Any, losses: list[dict[str, float]], finetuner: Finetuner, report: Report) -> None:
    file = "meta.json"
    if not isinstance(golden, list) or len(golden) != len(losses):
        raise FolderError(f"meta.json: training.losses must hold {len(losses)} steps, one for each update")
    weights = finetuner.config.weights.model_dump()
    for i, (ours, theirs) in enumerate(zip(losses, golden, strict=True)):
        for name, value in theirs.items():
            if name == "total":
                report.compare_number(file, f"losses[{i}].total", ours["total"], value)
            elif name in _LOSSES:
                mine = _LOSSES[name]
                report.compare_number(file, f"losses[{i}].{name}", weights[mine] * ours.get(mine, 0.0), value)
            else:
                raise FolderError(f"meta.json: training.losses[{i}].{name} is not a known loss")


def _compare_weights(folder: GoldenFolder, base: GoldenBase, finetuner: Finetuner, report: Report) -> None:
    g = folder.tensors("training.safetensors")
    spn = finetuner.spn.state_dict()
    for name, tensor in g.under("final_spn.").items():
        report.compare(g.name, f"final_spn.{name}", _known(spn, name, g.name), tensor)
    # The encoder and the latent prior are never touched.
    parts = (finetuner.unet, base.diffae.encoder, base.latent_prior[0])
    for network, tensors in zip(parts, split_weights(g.under("final_diffae_B.")), strict=True):
        trained = network.state_dict()
        for name, tensor in tensors.items():
            report.compare(g.name, f"final_diffae_B.{name}", _known(trained, name, g.name), tensor)


def _known(state: dict[str, Tensor], name: str, file: str) -> Tensor:
    if name not in state:
        raise FolderError(f"{file}: {name} is not a weight of the network")
    return state[name]


def compare_inference(
    folder: GoldenFolder, base: GoldenBase, settings: Settings, trained: Trained, report: Report
) -> None:
    """The official tester, on the release's finetuned model where it is there, else on our own."""
    settings.ignore("spn_time", "note")
    g = folder.tensors("inference.safetensors")
    levels, lambda_spn = len(base.diffae.unet.config.channel_mult), settings.take("lambda_spn")
    header = StyleHeader(
        style_id="golden", base_name="golden", base_fingerprint="", preset="official", config=trained.finetuner.config
    )
    try:
        config = StylizeConfig(
            t0_ratio=settings.take("t0_ratio"),
            encode_steps=settings.take("T_infer_for"),
            decode_steps=settings.take("T_infer_back"),
            lambda_spn=lambda_spn if trained.finetuner.config.spn_style == "one" else 0.0,  # else there was no SPN
            # The release passes over levels that the UNet does not have.
            style_levels=[level for level in settings.take("ref_cond_scale") if level < levels],
        )
    except ValidationError as error:
        raise FolderError(f"meta.json: inference: {error}") from None
    with torch.no_grad():
        report.compare(g.name, "z_style", base.diffae.encoder(trained.style_image), g["z_style"])
    like_base = cast(Base, base)
    own = Style(header, trained.finetuner.unet.eval(), trained.finetuner.spn.eval(), g["z_style"], ())
    encoded = encode(like_base, g["image"], encoding_for(own, config))
    report.compare(g.name, "z_in", encoded.z_in, g["z_in"])
    report.compare(g.name, "x_t0", encoded.x_t0, g["x_t0"])
    # Adam's first steps magnify rounding where gradients are near 0, so the release's own weights come first.
    official = _official_model(folder, like_base, settings.take("model", None))
    if official is None:
        report.compare(g.name, "stylized, own finetuning", stylize(own, encoded, config), g["stylized"])
        return
    unet, spn = official.unet.to(folder.dtype), official.spn.to(folder.dtype)
    style = Style(header, unet, spn, g["z_style"], ())
    report.compare(g.name, "stylized", stylize(style, encoded, config), g["stylized"])


def _official_model(folder: GoldenFolder, base: Base, model: str | None) -> OfficialStyle | None:
    """The style checkpoint that ``inference.model`` names; None where the folder has no official files.

    Raises:
        FolderError: it is missing although there are official files, or cannot be read.
    """
    if model is None:
        return None
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", model) or ".." in model:
        raise FolderError(f"meta.json: inference.model {model!r} is not a path inside the folder")
    path = folder.path / model
    if path.is_relative_to(folder.path / OPTIONAL) and not (folder.path / OPTIONAL).exists():
        return None  # reported with the other official files
    if not path.is_file():
        raise FolderError(f"{path} is missing")
    try:
        return read_style(path, base)
    except OsasisError as error:
        raise FolderError(str(error)) from None
