"""DiffAE's Lightning checkpoints (``last.ckpt``) and its latent statistics (``latent.pkl``)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from osasis.errors import ForeignFile
from osasis.importers.pickled import read_checkpoint, tensors_of
from osasis.importers.unet import infer_encoder, infer_unet
from osasis.networks.diffae import DiffAE
from osasis.networks.encoder import EncoderConfig
from osasis.networks.latent_prior import LatentPrior, LatentPriorConfig
from osasis.networks.unet import UNetConfig

Tensors = dict[str, Tensor]
Given = Mapping[str, Any]

_COMPUTED = {
    "beta_scheduler": "linear", "T": 1000, "beatgans_rescale_timesteps": False, "latent_rescale_timesteps": False,
    "latent_clip_sample": False, "latent_znormalize": True, "net_enc_pool": "adaptivenonzero",
    "net_enc_use_time": False, "net_autoenc_stochastic": False, "net_beatgans_resnet_two_cond": True,
    "net_num_input_res_blocks": None,
}  # fmt: skip
"""Hyperparameters of which one value can be computed."""


@dataclass(frozen=True)
class Networks:
    """Weights under this project's names, with their configurations; ``latent_prior`` may be absent."""

    unet: UNetConfig
    encoder: EncoderConfig
    latent_prior: LatentPriorConfig | None
    diffae: Tensors
    latent: Tensors


def split_weights(tensors: Mapping[str, Tensor]) -> tuple[Tensors, Tensors, Tensors]:
    """DiffAE's one state dict → (UNet, encoder, latent prior), each under this project's names.

    Raises:
        ForeignFile: the time projections of the latent net, which the release stores twice, differ.
    """
    unet, encoder, latent = {}, {}, {}
    for name, tensor in tensors.items():
        if name.startswith("encoder."):
            encoder[name.removeprefix("encoder.")] = tensor
        elif name.startswith("latent_net."):
            twin = name.replace("cond_layers.1", "linear_emb")
            if twin == name:
                latent[name.removeprefix("latent_net.")] = tensor
            elif twin in tensors and not torch.equal(tensor, tensors[twin]):
                raise ForeignFile(f"{name} and {twin} are stored twice and differ")
        else:
            unet[name.replace("time_embed.time_embed.", "time_embed.")] = tensor
    return unet, encoder, latent


def read_diffae(path: Path, *, image_size: int | None = None, given: Given | None = None) -> Networks:
    """The EMA networks of a Lightning checkpoint.

    Args:
        image_size: side in pixels, if not in the checkpoint.
        given: configuration fields that override what is inferred: {"unet": {…}, "encoder": {…}, "latent_prior": {…}}.

    Raises:
        ForeignFile: not such a checkpoint, or networks of a form that cannot be computed; names the file.
    """
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ForeignFile(f"{path} is not a Lightning checkpoint: it has no state_dict")
    state = tensors_of(content["state_dict"], path)
    ema = {name.removeprefix("ema_model."): t for name, t in state.items() if name.startswith("ema_model.")}
    if not ema:
        raise ForeignFile(f"{path} has no EMA weights (ema_model.…), which are the ones to use")
    hyper = content.get("hyper_parameters")
    hyper = dict(hyper) if isinstance(hyper, dict) else {}
    noise = state.get("x_T")  # what the release draws its samples from
    size = image_size or (noise.shape[-1] if noise is not None else hyper.get("img_size"))
    if not size:
        raise ForeignFile(f"{path} does not say its image size: pass it")
    try:
        return _networks(ema, hyper, int(size), given or {})
    except (ForeignFile, ValidationError) as error:
        raise ForeignFile(f"{path}: {error}") from None


def read_latent_stats(path: Path, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of z_sem, [D] float32 each.

    Raises:
        ForeignFile: not the release's latent statistics, or those of another width; names the file.
    """
    content = read_checkpoint(path)
    found = []
    for name in ("conds_mean", "conds_std"):
        tensor = content.get(name) if isinstance(content, dict) else None
        if not isinstance(tensor, Tensor):
            raise ForeignFile(f"{path} holds no {name}: it is not DiffAE's latent statistics")
        if tensor.numel() != channels:
            raise ForeignFile(f"{path}: {name} has {tensor.numel()} values, the network's z has {channels}")
        found.append(tensor.flatten().float())
    return found[0], found[1]


def infer_latent_prior(tensors: Mapping[str, Tensor], **given: Any) -> LatentPriorConfig:
    """The configuration of DiffAE's MLPSkipNet from its weights; ``given`` as in :func:`read_diffae`.

    Raises:
        ForeignFile: not such weights.
    """
    try:
        linear = [tensors[f"layers.{i}.linear.weight"] for i in range(_count(tensors, r"layers\.(\d+)\."))]
        time = sorted(int(name.split(".")[1]) for name in tensors if re.match(r"time_embed\.\d+\.weight", name))
        channels, hidden = linear[-1].shape[0], linear[0].shape[0]
        fields: dict[str, Any] = {
            "channels": channels,
            "hidden": hidden,
            "num_layers": len(linear),
            "time_channels": tensors["time_embed.0.weight"].shape[1],
            "num_time_layers": len(time),
            "use_norm": "layers.0.norm.weight" in tensors,
        }
    except (KeyError, IndexError) as error:
        raise ForeignFile(f"latent_net: {error} is missing") from None
    skips = tuple(i for i, w in enumerate(linear) if w.shape[1] == (hidden if i else channels) + channels)
    if skips != tuple(range(1, len(linear))):
        fields["skip_layers"] = skips
    return LatentPriorConfig.model_validate(fields | given)


def _networks(ema: Tensors, hyper: dict[str, Any], size: int, given: Given) -> Networks:
    for name, value in _COMPUTED.items():
        if hyper.get(name, value) != value:
            raise ForeignFile(f"hyperparameter {name} is {hyper[name]!r}; only {value!r} can be computed")
    unet, encoder, latent = split_weights(ema)
    heads = {"num_heads": hyper.get("net_beatgans_attn_head", 1)}
    dropout = {"dropout": hyper["dropout"]} if "dropout" in hyper else {}
    unet_config = infer_unet(unet, size, **(heads | dropout | dict(given.get("unet", {}))))
    encoder_given = heads | _known(hyper, num_res_blocks="net_enc_num_res_blocks", channel_mult="net_enc_channel_mult")
    encoder_config = infer_encoder(
        encoder,
        size,
        **({"num_res_blocks": unet_config.num_res_blocks} | encoder_given | dict(given.get("encoder", {}))),
    )
    latent_config = None
    if latent:
        known = _known(hyper, condition_bias="net_latent_condition_bias", time_last_act="net_latent_time_last_act")
        known |= _latent_beta(hyper.get("latent_beta_scheduler", "const0.008"))
        latent_config = infer_latent_prior(latent, **(known | dict(given.get("latent_prior", {}))))
    diffae = {f"unet.{k}": v for k, v in unet.items()} | {f"encoder.{k}": v for k, v in encoder.items()}
    with torch.device("meta"):
        check_fit(DiffAE(unet_config, encoder_config), diffae, "DiffAE")
        if latent_config:
            check_fit(LatentPrior(latent_config), latent, "latent_net")
    return Networks(unet_config, encoder_config, latent_config, diffae, latent)


def check_fit(network: torch.nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """That weights are those of a network, by name and shape, and numbers.

    Raises:
        ForeignFile: with the first few that are missing, too many, or of another shape.
    """
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    wrong = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    wrong += [f"{name} is not known" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        if expected[name] != tuple(tensors[name].shape):
            wrong.append(f"{name} has shape {tuple(tensors[name].shape)}, not {expected[name]}")
        elif not torch.isfinite(tensors[name]).all():
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ForeignFile(f"{what}: {'; '.join(sorted(wrong)[:3])}{more}")


def _known(hyper: dict[str, Any], **names: str) -> dict[str, Any]:
    return {field: hyper[name] for field, name in names.items() if hyper.get(name) is not None}


def _latent_beta(scheduler: str) -> dict[str, float]:
    match = re.fullmatch(r"const(0\.\d+)", str(scheduler))
    if match is None:
        raise ForeignFile(f"hyperparameter latent_beta_scheduler is {scheduler!r}; only const0.… can be computed")
    return {"beta": float(match.group(1))}


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for name in tensors if (match := re.match(pattern, name))})
