"""Stylizing photographs (Eq. 7, 11, 13): encode once, decode under any number of styles. Pure functions of tensors.

Shapes: B photographs, S image size, D width of z_sem.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style
from osasis.content import Content, encode_content
from osasis.diffusion import Schedule, ddim_move, predict_x0
from osasis.finetune import decode_indices
from osasis.settings import StylizeConfig


class Encoding(NamedTuple):
    """What an encoding depends on beside the picture: styles for which this is equal share it."""

    steps: int
    t0_ratio: float
    clamp: bool


def encoding_for(style: Style, config: StylizeConfig) -> Encoding:
    """How photographs must be encoded for this style."""
    return Encoding(config.encode_steps, t0_of(style, config), style.config.clamp)


def t0_of(style: Style, config: StylizeConfig) -> float:
    return style.config.t0_ratio if config.t0_ratio is None else config.t0_ratio


def encode(base: Base, images: Tensor, encoding: Encoding) -> Content:
    """Semantic and structural codes of ``images`` [B, 3, S, S] in [-1, 1] (Eq. 7); they know nothing of the style."""
    return encode_content(base, images, steps=encoding.steps, t0_ratio=encoding.t0_ratio, clamp=encoding.clamp)


@torch.no_grad()
def stylize(style: Style, encoded: Content, config: StylizeConfig) -> Tensor:
    """The photographs in the style: [B, 3, S, S] in [-1, 1].

    Mixed conditioning: z_style on ``style_levels``, z_in on the other levels and the middle block.
    """
    levels = style.style_levels if config.style_levels is None else config.style_levels
    settings = style.config
    schedule = Schedule.ddim(config.decode_steps)
    x, device = encoded.x_t0, encoded.x_t0.device
    for i in decode_indices(schedule, t0_of(style, config), matched=settings.matched_t0):
        step = torch.full((len(x),), i, dtype=torch.long, device=device)
        x = x + config.lambda_spn * style.spn(encoded.photos, step)
        eps = style.unet(
            x, schedule.t(i, len(x), device), encoded.z_in, z_style=style.z_style, style_levels=levels
        ).float()
        x0 = predict_x0(x, eps, schedule.alpha_bar_at(i), settings.clamp)
        x = ddim_move(x, x0, schedule.alpha_bar_at(i), schedule.alpha_bar_at(i - 1))
    return x.clamp(-1, 1)
