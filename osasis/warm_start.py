"""Beginning a style where finished ones of the same base ended, instead of at the base."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style
from osasis.finetune import Finetuner
from osasis.networks.adapters import combined, trained_parameters
from osasis.strength import mix


@dataclass(frozen=True)
class WarmStart:
    """Styles at full strength, the nearest first, with weights that sum to 1; ``names`` tell which."""

    styles: Sequence[tuple[Style, float]]
    names: tuple[str, ...] = ()


def evenly(styles: Sequence[Style], names: Sequence[str] = ()) -> WarmStart:
    return WarmStart([(style, 1 / len(styles)) for style in styles], tuple(names))


@torch.no_grad()
def begin_from(start: WarmStart, tuner: Finetuner, base: Base) -> None:
    """Set the weights of a new finetuning: eps_B from the average, the SPN from the first, where it has the same form.

    An average of adapters is of a higher rank: the nearest of the rank that is trained is taken.

    Raises:
        ValueError: adapters are trained, and a style has none.
    """
    unet = _adapters(start, tuner, base) if tuner.config.adapter_rank else mix(base, start.styles).unet.state_dict()
    first, spn = start.styles[0][0].spn.state_dict(), tuner.spn.state_dict()
    same = {name: w.shape for name, w in first.items()} == {name: w.shape for name, w in spn.items()}
    tuner.load_weights({"unet": unet, "spn": first if same else spn})


def _adapters(start: WarmStart, tuner: Finetuner, base: Base) -> dict[str, Tensor]:
    if whole := [style.style_id for style, _ in start.styles if style.deltas is None]:
        raise ValueError(f"adapters cannot begin from {', '.join(whole)}, whose weights were all trained")
    deltas = combined([(style.deltas or {}, weight) for style, weight in start.styles], tuner.config.adapter_rank)
    before = dict(base.diffae.unet.named_parameters())
    return {
        name: before[name] + deltas[name] if name in before else deltas[name]
        for name in trained_parameters(tuner.unet)
        if name in deltas
    }
