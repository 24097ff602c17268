"""Stylizing photographs (Eq. 7, 11, 13): encode once, decode under any number of styles. Pure functions of tensors.

Shapes: B photographs, S image size, D width of z_sem.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style
from osasis.color import match_colors
from osasis.content import Content, encode_content
from osasis.diffusion import Schedule, asked_steps, ddim_move, predict_x0, sparse_ddim
from osasis.finetune import decode_indices
from osasis.precision import computing
from osasis.settings import FORWARDS, StylizeConfig


class Encoding(NamedTuple):
    """What an encoding depends on besides the picture; styles with equal values share it."""

    steps: int
    t0_ratio: float
    clamp: bool
    forwards: int | None = None
    """Of a faster solver; None: one for each step of DDIM."""


def encoding_for(style: Style, config: StylizeConfig) -> Encoding:
    """How photographs must be encoded for this style."""
    forwards = None if config.quality == "exact" else FORWARDS[config.quality][0]
    return Encoding(config.encode_steps, t0_of(style, config), style.config.clamp, forwards)


def t0_of(style: Style, config: StylizeConfig) -> float:
    return style.config.t0_ratio if config.t0_ratio is None else config.t0_ratio


def encode(base: Base, images: Tensor, encoding: Encoding) -> Content:
    """Semantic and structural codes of ``images`` [B, 3, S, S] in [-1, 1] (Eq. 7); they know nothing of the style."""
    return encode_content(base, images, **encoding._asdict())


@torch.no_grad()
def stylize(style: Style, encoded: Content, config: StylizeConfig) -> Tensor:
    """The photographs in the style: [B, 3, S, S] in [-1, 1].

    Mixed conditioning: z_style on the style's levels, z_in on the other levels and the middle block; or the other way
    round with ``swap_conditioning`` (Figure 8).

    Raises:
        ValueError: the UNet lacks a requested level, or the style's weights are not at the requested strength
            (:func:`osasis.strength.at_strength` brings them there).
    """
    if style.strength != config.weight_strength:
        raise ValueError(f"the style's weights have strength {style.strength:g}, not {config.weight_strength:g}")
    config.check_levels(len(style.unet.config.channel_mult))
    z, z_style, levels = conditioning(style, encoded.z_in, config)
    spn_weight = config.lambda_spn * style.strength
    if style.config.spn_steps == "spread":
        spn_weight *= style.config.decode_steps / config.decode_steps
    schedule = Schedule.ddim(config.decode_steps, style.unet.config.beta_end)
    steps = [*decode_indices(schedule, t0_of(style, config), matched=style.config.matched_t0), -1]
    device, clamp = encoded.x_t0.device, style.config.clamp
    photos = encoded.photos.contiguous(memory_format=torch.channels_last)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        with computing(config.precision, device):
            return style.unet(x, t, z, z_style=z_style, style_levels=levels)

    def spn(i: int) -> Tensor:
        step = torch.full((len(encoded),), i, dtype=torch.long, device=device)
        return spn_weight * style.spn(photos, step)

    if config.quality != "exact" and (forwards := FORWARDS[config.quality][1]) < len(steps) - 1:
        asked = asked_steps(steps[:-1], forwards)
        held = [torch.zeros_like(encoded.x_t0)]

        def push(i: int) -> Tensor:
            """The SPN's addition, which changes slowly: asked where the UNet is."""
            if i in asked:
                held[0] = spn(i)
            return held[0]

        x = sparse_ddim(encoded.x_t0, eps, schedule, steps, asked, clamp=clamp, push=push if spn_weight else None)
        return _finished(x, style, config)
    x = encoded.x_t0
    for i, to in pairwise(steps):
        if spn_weight:
            x = x + spn(i)
        x0 = predict_x0(x, eps(x, schedule.t(i, len(x), device)).to(x.dtype), schedule.alpha_bar_at(i), clamp)
        x = ddim_move(x, x0, schedule.alpha_bar_at(i), schedule.alpha_bar_at(to))
    return _finished(x, style, config)


def _finished(x: Tensor, style: Style, config: StylizeConfig) -> Tensor:
    """What decoding ended with as pictures, in the style's colours as far as it was set."""
    part = style.config.color_match if config.color_match is None else config.color_match
    return match_colors(x.clamp(-1, 1), style.header.colors, part * style.strength)


def conditioning(style: Style, z_in: Tensor, config: StylizeConfig) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """For ``z_in`` [B, D]: (z of most blocks [B, D], z of the named levels [B, D], those levels)."""
    z_style = torch.lerp(z_in, style.z_style.expand_as(z_in), config.z_strength)
    levels = config.levels(style.style_levels)
    return (z_style, z_in, levels) if config.swap_conditioning else (z_in, z_style, levels)
