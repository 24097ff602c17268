"""Style strength and mixtures: interpolation between the base's and the networks of styles."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch

from osasis.base import Base
from osasis.checkpoint import Style, StyleHeader
from osasis.color import mixed_colors
from osasis.networks.spn import MixedSPN, PlainSPN
from osasis.settings import StylizeConfig, train_config

NO_STYLE: Final = "none"
"""Id that stands for the base without a style; reserved."""


@torch.no_grad()
def at_strength(style: Style, base: Base, strength: float) -> Style:
    """The style with its weights at ``strength`` between eps_A (0, exactly) and eps_B (1, the style itself).

    The SPN belongs to the finetuned weights: :func:`osasis.stylize.stylize` scales its output by the same number.

    Raises:
        ValueError: the style is not at full strength, or ``strength`` is outside of [0, 1].
    """
    if style.strength != 1 or not 0 <= strength <= 1:
        raise ValueError(f"cannot bring a style of strength {style.strength:g} to strength {strength:g}")
    if strength == 1:
        return style
    unet = copy.deepcopy(style.unet)
    for ours, eps_a in zip(unet.parameters(), base.diffae.unet.parameters(), strict=True):
        ours.copy_(torch.lerp(eps_a, ours, strength))
    return replace(style, unet=unet, strength=strength)


@torch.no_grad()
def mix(base: Base, styles: Sequence[tuple[Style, float]]) -> Style:
    """A mixture of styles of one base, whole or of adapters, by weights that sum to 1; settings are those of the first.

    What each has added to eps_A's weights, and its z_style and SPN's output, are added up.

    Raises:
        ValueError: weights that do not sum to 1, or a style that is not at full strength.
    """
    if not styles or abs(sum(weight for _, weight in styles) - 1) > 1e-6:
        raise ValueError("weights of a mixture have to sum to 1")
    if weak := [style.style_id for style, _ in styles if style.strength != 1]:
        raise ValueError(f"styles of a mixture have to be at full strength, and {', '.join(weak)} is not")
    unet = copy.deepcopy(base.diffae.unet)
    others = [style.unet.parameters() for style, _ in styles]
    for ours, *theirs in zip(unet.parameters(), *others, strict=True):
        eps_a = ours.clone()
        for (_, weight), parameter in zip(styles, theirs, strict=True):
            ours.add_(parameter - eps_a, alpha=weight)
    z_style = sum((weight * style.z_style for style, weight in styles), torch.zeros_like(styles[0][0].z_style))
    spn = MixedSPN([(style.spn, weight) for style, weight in styles])
    first = styles[0][0]
    header = first.header.model_copy(update={"colors": mixed_colors([(s.header.colors, w) for s, w in styles])})
    return replace(first, header=header, unet=unet, spn=spn, z_style=z_style, deltas=None)


def no_style(base: Base) -> Style:
    """The base alone, in the place of a style: of strength 0, with the settings its styles are trained with."""
    config = train_config("official", base.spec.train_defaults)
    header = StyleHeader(
        style_id=NO_STYLE, base_name=base.spec.name, base_fingerprint=base.fingerprint, preset="official", config=config
    )
    z_style = torch.zeros(1, base.spec.encoder.out_channels, device=base.device)
    return Style(header, base.diffae.unet, PlainSPN(), z_style, (), strength=0.0)


def without_style(config: StylizeConfig) -> StylizeConfig:
    """The same settings for :func:`no_style`."""
    return config.model_copy(update={"style_strength": 0.0, "strength_of": "both", "f_ch": None, "style_levels": None})
