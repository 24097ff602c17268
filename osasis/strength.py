"""Style strength: networks between the base's and the style's."""

import copy
from dataclasses import replace

import torch

from osasis.base import Base
from osasis.checkpoint import Style


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
