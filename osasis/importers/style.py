"""Style checkpoints of the official release (``iter_200.pt``)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import StyleHeader, dump_style
from osasis.color import colors_of
from osasis.errors import BaseMismatch, ForeignFile
from osasis.full_size import Texture
from osasis.importers.diffae import check_fit, split_weights
from osasis.importers.pickled import read_checkpoint, tensors_of
from osasis.networks.layers import zeroed
from osasis.networks.spn import SPN, PlainSPN, TimeSPN
from osasis.networks.unet import UNet
from osasis.settings import TrainConfig, train_config


@dataclass(frozen=True)
class OfficialStyle:
    """What the release's trainer saved: eps_B and SPN, in evaluation mode, and the number of iterations."""

    unet: UNet
    spn: SPN
    iterations: int

    def config(self) -> TrainConfig:
        """The release's settings, as far as the file shows them."""
        spn = "time" if isinstance(self.spn, TimeSPN) else "plain"
        return train_config("official", {"iterations": self.iterations, "spn": spn})


def read_style(path: Path, base: Base) -> OfficialStyle:
    """Read a checkpoint of the release onto the base's device; the optimizer's state is left.

    A checkpoint that was trained without SPN gets one whose output is zero.

    Raises:
        ForeignFile: not such a checkpoint, or of another size than the base; names the file.
        BaseMismatch: its encoder, which training never touches, is not the base's.
    """
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not isinstance(content.get("diffae_B"), dict):
        raise ForeignFile(f"{path} is not a style checkpoint of the release: it has no diffae_B")
    try:
        weights, encoder, _ = split_weights(tensors_of(content["diffae_B"], path))
        unet = UNet(base.spec.unet)
        check_fit(unet, weights, "diffae_B")
        unet.load_state_dict(weights)
        check_fit(base.diffae.encoder, encoder, "diffae_B.encoder")
        spn = _spn(content.get("model_map"), path)
    except ForeignFile as error:
        raise ForeignFile(f"{path}: {error}") from None
    for name, tensor in base.diffae.encoder.state_dict().items():
        if not torch.allclose(encoder[name].float(), tensor.cpu().float(), rtol=2e-3, atol=1e-4):
            raise BaseMismatch(f"{path} was trained on another base than {base.spec.name}: encoder.{name} differs")
    for network in (unet, spn):
        network.eval().requires_grad_(False).to(base.device)
    iterations = content.get("iter")
    return OfficialStyle(unet, spn, iterations if isinstance(iterations, int) and iterations > 0 else 1)


@torch.no_grad()
def style_file(official: OfficialStyle, base: Base, style_image: Tensor, style_id: str, texture: Texture = ()) -> bytes:
    """The style in this project's format, in float32, as the release has it.

    ``style_image`` I_B_style [1, 3, S, S] in [-1, 1]: z_style is its encoding. ``texture``: of its whole picture.
    """
    header = StyleHeader(
        style_id=style_id,
        base_name=base.spec.name,
        base_fingerprint=base.fingerprint,
        preset="official",
        config=official.config(),
        texture=texture,
        colors=colors_of(style_image),
    )
    z_style = base.diffae.encoder(style_image.to(base.device))
    return dump_style(header, official.unet, official.spn, z_style, dtype=torch.float32)


def _spn(weights: object, path: Path) -> SPN:
    if weights is None:
        spn: SPN = PlainSPN()
        zeroed(spn)
        return spn
    tensors = tensors_of(weights, path)
    spn = TimeSPN() if "time_embed.0.weight" in tensors else PlainSPN()
    check_fit(spn, tensors, "model_map")
    spn.load_state_dict(tensors)
    return spn
