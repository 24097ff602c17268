"""SSIM and PSNR to the exact path by forwards of the network, for each solver."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from math import log
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.stylize_parts.cheaper import psnr
from benchmarks.stylize_parts.studio import Studio
from osasis.diffusion import Denoiser, Schedule, ddim_move, predict_x0, sparse_ddim
from osasis.method import Codes, pictures_of
from osasis.metrics import structural_similarity
from osasis.settings import FORWARDS, StylizeConfig

COUNTS = ((3, 2), (4, 3), (5, 4), (6, 5), (8, 6), (10, 8), (16, 12), (24, 16))
"""Forwards to encode and to decode."""


def measure(studio: Studio, counts: Sequence[tuple[int, int]], say: Callable[[str], None]) -> None:
    base, style = studio.open()
    solvers = {"linear (ours)": sparse_ddim, "held": held, "DPM-Solver++(2M)": dpm_solver}

    @torch.inference_mode()
    def pictures(**config: str) -> Tensor:
        codes: Codes = {}
        return pictures_of(base, style, studio.photographs, StylizeConfig.model_validate(config), codes=codes)

    exact = pictures()
    say(f"{len(exact)} photographs in a finetuned style of mini64, t0 as trained; SSIM and PSNR (dB) to every step")
    say(f"| forwards (encode, decode) | {' | '.join(solvers)} |")
    say("|---|" + "---|" * len(solvers))
    for encode, decode in counts:
        cells = []
        for solver in solvers.values():
            with (
                patch.dict(FORWARDS, {"standard": (encode, decode)}),
                patch("osasis.stylize.sparse_ddim", solver),
                patch("osasis.content.sparse_ddim", solver),
            ):
                made = pictures(quality="standard")
            cells.append(f"{structural_similarity(exact, made).mean():.4f}, {psnr(exact, made):.1f}")
        say(f"| {encode}, {decode} | {' | '.join(cells)} |")


Push = Callable[[int], Tensor]


def held(
    x: Tensor, denoise: Denoiser, schedule: Schedule, steps: Sequence[int], asked: Collection[int],
    *, clamp: bool = True, push: Push | None = None,
) -> Tensor:  # fmt: skip
    """As :func:`osasis.diffusion.sparse_ddim`, the last answer's noise held: DDIM with fewer, unequal steps."""
    answer: deque[Tensor] = deque(maxlen=1)
    for i, to in pairwise(steps):
        alpha_bar = schedule.alpha_bar_at(i)
        x = x + push(i) if push else x
        if i in asked:
            answer.append(denoise(x, schedule.t(i, len(x), x.device)))
        x = ddim_move(x, predict_x0(x, answer[0], alpha_bar, clamp), alpha_bar, schedule.alpha_bar_at(to))
    return x


def dpm_solver(
    x: Tensor, denoise: Denoiser, schedule: Schedule, steps: Sequence[int], asked: Collection[int],
    *, clamp: bool = True, push: Push | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) from each step asked to the next, in either direction."""
    places = [n for n, i in enumerate(steps) if i in asked] + [len(steps) - 1]
    before: tuple[float, Tensor] | None = None
    for here, there in pairwise(places):
        i, a, b = steps[here], schedule.alpha_bar_at(steps[here]), schedule.alpha_bar_at(steps[there])
        x = x + push(i) * (there - here) if push else x
        x0 = predict_x0(x, denoise(x, schedule.t(i, len(x), x.device)), a, clamp)
        slope, level = x0, 0.5 * log(a / (1 - a))
        if before and b < 1:
            r = (level - before[0]) / (0.5 * log(b / (1 - b)) - level)
            slope = x0 + (x0 - before[1]) / (2 * r)
        before = (level, x0)
        x = ddim_move(x, x0, a, b) if slope is x0 else _moved(x, slope, a, b)
    return x


def _moved(x: Tensor, slope: Tensor, a: float, b: float) -> Tensor:
    ratio = ((1 - b) / (1 - a)) ** 0.5
    return ratio * x + (b**0.5 - ratio * a**0.5) * slope
