"""Style checkpoints: what finetuning changed (eps_B, SPN, z_style) with its settings, in one safetensors file.

eps_B is whole, or, of a style that was trained by adapters, what they add to the base's.
"""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from osasis.base import Base
from osasis.color import Colors
from osasis.errors import BaseMismatch, CheckpointError
from osasis.full_size import Texture
from osasis.networks.adapters import Deltas, merged
from osasis.networks.layers import sharing
from osasis.networks.spn import SPN, MixedSPN, make_spn
from osasis.networks.unet import UNet
from osasis.settings import Preset, TrainConfig

FORMAT: Final = "osasis-style-1"
ADAPTER_FORMAT: Final = "osasis-adapter-1"


class StyleHeader(BaseModel):
    """The metadata of a style file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["osasis-style-1", "osasis-adapter-1"] = FORMAT
    style_id: str
    base_name: str
    base_fingerprint: str
    preset: Preset
    config: TrainConfig
    texture: Texture = Field((), exclude_if=lambda texture: not texture)
    """The reference's, for enlarged pictures; styles of before have none."""
    colors: Colors = Field((), exclude_if=lambda colors: not colors)
    """The reference's, for ``color_match``; styles of before have none."""
    started_from: tuple[str, ...] = Field((), exclude_if=lambda names: not names)
    """Styles that training began from, as ``id@version``; none: at the base."""


@dataclass(frozen=True)
class Style:
    """A trained style on one device, frozen, in evaluation mode.

    z_style [1, D]; ``style_levels``: the UNet levels it conditions, by default; ``strength``: where the
    weights lie between the base's (0) and the finetuned ones (1), see :mod:`osasis.strength`; ``deltas``: of adapters,
    which are merged in ``unet`` already; None: all weights were trained.
    """

    header: StyleHeader
    unet: UNet
    spn: SPN | MixedSPN
    z_style: Tensor
    style_levels: tuple[int, ...]
    strength: float = 1.0
    deltas: Deltas | None = None

    @property
    def config(self) -> TrainConfig:
        return self.header.config

    @property
    def style_id(self) -> str:
        return self.header.style_id


def dump_style(
    header: StyleHeader,
    unet: UNet,
    spn: SPN | MixedSPN,
    z_style: Tensor,
    *,
    deltas: Deltas | None = None,
    dtype: torch.dtype = torch.float16,
) -> bytes:
    """The file's bytes, the same for the same weights; float16 as base bundles are, unless every bit matters.

    ``deltas`` are written in the place of ``unet``, where they are given.
    """
    if deltas is None:
        tensors = {f"unet.{k}": v for k, v in unet.state_dict().items()}
    else:
        tensors = {f"adapter.{k}": v for k, v in deltas.items()}
        header = header.model_copy(update={"format": ADAPTER_FORMAT})
    tensors |= {f"spn.{k}": v for k, v in spn.state_dict().items()}
    tensors["z_style"] = z_style
    stored = {k: v.detach().to("cpu", dtype).contiguous() for k, v in tensors.items()}
    return save(stored, {"osasis": header.model_dump_json()})


def read_header(path: Path) -> StyleHeader:
    """Metadata of a style file, without its weights.

    Raises:
        CheckpointError: not a style file, or a damaged one.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return StyleHeader.model_validate(json.loads(metadata["osasis"]))
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError, ValidationError) as error:
        raise CheckpointError(f"{path} is not a style checkpoint: {error}") from None


def load_style(path: Path, base: Base) -> Style:
    """Load a style onto the base's device.

    Raises:
        CheckpointError: the file is damaged.
        BaseMismatch: it was trained on another base.
    """
    header = read_header(path)
    if header.base_fingerprint != base.fingerprint:
        raise BaseMismatch(
            f"style {header.style_id} was trained on base {header.base_name} ({header.base_fingerprint}), "
            f"not on {base.spec.name} ({base.fingerprint}): give that base, or train the style again"
        )
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        z_style = tensors.pop("z_style").to(base.device)
        deltas = None
        if header.format == ADAPTER_FORMAT:
            deltas = {name: delta.to(base.device) for name, delta in _part(tensors, "adapter.").items()}
            unet = merged(base.diffae.unet, deltas)
        else:
            unet = sharing(base.diffae.unet)  # weights follow: to make a network takes longer than to load
            unet.load_state_dict(_part(tensors, "unet."), assign=True)
            unet = unet.requires_grad_(False).to(base.device).to(memory_format=torch.channels_last)
        with torch.device("meta"):
            spn = make_spn(header.config.spn, header.config.spn_width)
        spn.load_state_dict(_part(tensors, "spn."), assign=True)
    except (SafetensorError, AttributeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    spn = spn.eval().requires_grad_(False).to(base.device)
    return Style(header, unet, spn, z_style, base.style_levels, deltas=deltas)


def style_on(style: Style, device: torch.device) -> Style:
    """A copy of the style on another device."""
    unet, spn = copy.deepcopy(style.unet).to(device), copy.deepcopy(style.spn).to(device)
    deltas = style.deltas and {name: delta.to(device) for name, delta in style.deltas.items()}
    return replace(style, unet=unet, spn=spn, z_style=style.z_style.to(device), deltas=deltas)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
