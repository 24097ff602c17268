"""A start from which styles of a base need fewer updates, learnt from many references (Reptile; Nichol et al. 2018).

In every round some references are trained for a few iterations from where the start is; then the start moves a part of
the way to their average. It is written as a style's file, which ``start_from`` takes.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style, dump_style
from osasis.content import Content
from osasis.networks.adapters import combined, merged
from osasis.settings import Preset, TrainConfig
from osasis.strength import mix, no_style
from osasis.style_training import StyleTraining
from osasis.warm_start import evenly

START = "start"
"""Id in the header of a start's file."""


def inner_config(config: TrainConfig, iterations: int) -> TrainConfig:
    """Of the few iterations from a start: at constant rates, as training begins."""
    return config.model_copy(update={"iterations": iterations, "rate_decay": 0.0, "patience": 0, "start_from": "none"})


def train_from(
    base: Base,
    start: Style | None,
    reference: Tensor,
    config: TrainConfig,
    preset: Preset,
    content: Content,
    photo: Tensor | None = None,
) -> tuple[Style, Tensor, float]:
    """(what a few iterations make of the start, the reference's style photo [1, 3, S, S], the last one's loss).

    Args:
        start: None: the base.
        reference: [1, 3, S, S] in [-1, 1].
        config: see :func:`inner_config`.
        photo: the style photo, where it is known.
    """
    begin = evenly([start]) if start else None
    training = StyleTraining(base, reference, config, content=content, start=begin, photo=photo)
    *_, losses = training.run()
    return training.style(START, preset), training.reference.photo, losses["total"]


@torch.no_grad()
def moved(base: Base, start: Style | None, trained: Sequence[Style], rate: float) -> Style:
    """The start after a round: at ``rate``, in (0, 1], of the way to the average of what was trained from it.

    Of adapters, the nearest of their rank. The SPN of a base's first round is their average.
    """
    parts = [(style, rate / len(trained)) for style in trained]
    rest = (start or replace(no_style(base), strength=1.0), 1 - rate)
    mixed = mix(base, [*parts, rest])
    unet, deltas = mixed.unet, None
    if trained[0].deltas is not None:
        known = [(style.deltas or {}, weight) for style, weight in [*parts, rest]]
        deltas = combined(known, trained[0].config.adapter_rank)
        unet = merged(base.diffae.unet, deltas)
    spns = [(style.spn, weight) for style, weight in ([*parts, rest] if start else parts)]
    whole = sum(weight for _, weight in spns)
    spn = copy.deepcopy(trained[0].spn)
    states = [(other.state_dict(), weight / whole) for other, weight in spns]
    spn.load_state_dict({name: sum(weight * state[name] for state, weight in states) for name in spn.state_dict()})
    header = trained[0].header.model_copy(update={"texture": (), "colors": (), "started_from": ()})
    return Style(header, unet, spn, mixed.z_style, base.style_levels, deltas=deltas)


def dump_start(start: Style, dtype: torch.dtype = torch.float16) -> bytes:
    """A start's file, as :func:`osasis.checkpoint.load_style` reads it."""
    return dump_style(start.header, start.unet, start.spn, start.z_style, deltas=start.deltas, dtype=dtype)
