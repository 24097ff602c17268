"""What the parts that compute pictures share: base, photographs and a style."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from osasis.base import Base, BaseSpec, bundled_bases, load_base
from osasis.checkpoint import Style, StyleHeader, load_style
from osasis.image import decode_image, fit, to_tensor
from osasis.networks.diffae import DiffAE
from osasis.networks.layers import sharing
from osasis.networks.spn import TimeSPN
from osasis.precision import Precision, exact_float32
from osasis.pretrain.recipe import RECIPES
from osasis.settings import TrainConfig, train_config
from osasis.style_training import StyleTraining

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
REFERENCE = "van-gogh-1889.jpg"

Sizes = Literal["mini64", "ffhq256"]
"""Of the networks: the bundled base, or the paper's with random weights, whose pictures say nothing."""


@dataclass(frozen=True)
class Studio:
    """``photographs`` [B, 3, S, S], on ``device``; ``style``: a checkpoint on mini64, or None for random weights."""

    photographs: Tensor
    style: Path | None
    device: torch.device

    def open(self, precision: Precision = "float32") -> tuple[Base, Style]:
        if self.style is None:
            base = Base(*_random(), device=str(self.device), precision=precision)
            return base, _like(base)
        base = load_base(bundled_bases()["mini64"], str(self.device), precision=precision)
        return base, load_style(self.style, base)


def studio(photographs: int, folder: Path, style: Path | None, device: torch.device, sizes: Sizes = "mini64") -> Studio:
    """``style``: a checkpoint on mini64; None: one is trained first, which takes a minute or two of one core.

    There are 24 photographs; where more are asked for they come again.
    """
    torch.set_num_threads(1)
    exact_float32()
    files = islice(cycle(sorted((SAMPLES / "portraits").iterdir())), photographs)
    if sizes == "ffhq256":
        return Studio(_pictures(files, RECIPES[sizes]().image_size).to(device), None, device)
    base = load_base(bundled_bases()[sizes], str(device))
    if style is None:
        reference = _pictures([SAMPLES / "styles" / REFERENCE], base.image_size)
        training = StyleTraining(base, reference, train_config("official", base.spec.train_defaults))
        for _ in training.run():
            pass
        style = folder / "style.safetensors"
        style.write_bytes(training.checkpoint("reference", "official"))
    return Studio(_pictures(files, base.image_size).to(device), style, device)


@cache
def _random() -> tuple[BaseSpec, str, dict[str, dict[str, Tensor]]]:
    """Specification, fingerprint and tensors of a base of the paper's sizes."""
    recipe = RECIPES["ffhq256"]()
    spec = BaseSpec(
        name="random",
        image_size=recipe.image_size,
        unet=recipe.unet,
        encoder=recipe.encoder,
        style_levels=recipe.style_levels,
    )
    torch.manual_seed(0)
    return spec, "random", {"diffae": DiffAE(spec.unet, spec.encoder).state_dict()}


def _like(base: Base) -> Style:
    """A style whose UNet is the base's."""
    header = StyleHeader(
        style_id="random", base_name="random", base_fingerprint="random", preset="official", config=TrainConfig()
    )
    spn = TimeSPN().eval().requires_grad_(False).to(base.device)
    z_style = torch.zeros(1, base.spec.encoder.out_channels, device=base.device)
    return Style(header, sharing(base.diffae.unet), spn, z_style, base.style_levels)


def _pictures(files: Iterable[Path], size: int) -> Tensor:
    return torch.stack([to_tensor(fit(decode_image(path.read_bytes()), size)[0]) for path in files])
