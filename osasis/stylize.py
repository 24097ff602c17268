"""Stylizing photographs (Eq. 7, 11, 13): encode once, decode under any number of styles. Pure functions of tensors.

Shapes: B photographs, S image size, D width of z_sem.
"""

import torch
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style
from osasis.content import Content, encode_content
from osasis.diffusion import Schedule, ddim_move, predict_x0
from osasis.finetune import decode_indices
from osasis.settings import StylizeConfig


def encode(base: Base, images: Tensor, config: StylizeConfig, *, clamp: bool = True) -> Content:
    """Semantic and structural codes of ``images`` [B, 3, S, S] in [-1, 1]; the same for every style of the base."""
    return encode_content(base, images, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=clamp)


@torch.no_grad()
def stylize(style: Style, encoded: Content, config: StylizeConfig) -> Tensor:
    """The photographs in the style: [B, 3, S, S] in [-1, 1].

    Mixed conditioning: z_style on ``style_levels``, z_in on the other levels and the middle block.
    """
    levels = style.style_levels if config.style_levels is None else config.style_levels
    settings = style.config
    schedule = Schedule.ddim(config.decode_steps)
    x, device = encoded.x_t0, encoded.x_t0.device
    for i in decode_indices(schedule, config.t0_ratio, matched=settings.matched_t0):
        step = torch.full((len(x),), i, dtype=torch.long, device=device)
        x = x + config.lambda_spn * style.spn(encoded.photos, step)
        eps = style.unet(
            x, schedule.t(i, len(x), device), encoded.z_in, z_style=style.z_style, style_levels=levels
        ).float()
        x0 = predict_x0(x, eps, schedule.alpha_bar_at(i), settings.clamp)
        x = ddim_move(x, x0, schedule.alpha_bar_at(i), schedule.alpha_bar_at(i - 1))
    return x.clamp(-1, 1)
