"""Processor time for each (photograph, style) against the way of the release, lever by lever, and the floor in FLOPs.

The release encodes for every style, runs every step of DDIM, and takes pictures one by one in float32.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stylize_parts.studio import Studio
from osasis.base import Base
from osasis.checkpoint import Style
from osasis.method import Codes, pictures_of
from osasis.metrics import structural_similarity
from osasis.settings import FORWARDS, StylizeConfig

RELEASE_T0 = 0.5
"""Depth of the release: 50 of 100 steps to encode; mini64's styles are trained for 0.4."""

EXACT = StylizeConfig(t0_ratio=RELEASE_T0)


@dataclass(frozen=True)
class Way:
    """How pictures are made."""

    name: str
    shared: bool = False
    batched: bool = False
    config: StylizeConfig = EXACT
    channels_last: bool = False
    compiled: bool = False

    def run(self, base: Base, style: Style, images: Tensor, codes: list[Codes]) -> Tensor:
        """[B, 3, S, S]; ``codes``: of each image, or all in the first; found ones are added."""
        if self.batched:
            return pictures_of(base, style, images, self.config, codes=codes[0])
        parts = zip(images.split(1), codes, strict=True)
        return torch.cat(
            [pictures_of(base, style, image, self.config, codes=known if self.shared else {}) for image, known in parts]
        )


def ways(*, compiled: bool) -> list[Way]:
    """Each with one lever more than the one before; bf16 and compilation, which are off by default, come last."""
    found = [Way("the release's way")]

    def then(name: str, **changes: object) -> None:
        found.append(replace(found[-1], name=name, **changes))  # type: ignore[arg-type]  # fields of Way

    then("one encoding for all styles", shared=True)
    then("the solver of --quality standard", config=StylizeConfig(t0_ratio=RELEASE_T0, quality="standard"))
    then("batches", batched=True)
    then("channels_last", channels_last=True)
    fast = found[-1]
    then("bf16", config=fast.config.model_copy(update={"precision": "bf16"}))
    if compiled:
        found.append(replace(fast, name="torch.compile, instead of bf16", compiled=True))
    return found


def measure(studio: Studio, styles: int, *, compiled: bool, say: Callable[[str], None]) -> tuple[float, float]:
    """(times cheaper, SSIM) of the cheapest way that is on by default: without bf16 and compilation."""
    images = studio.photographs
    say(f"{len(images)} photographs in {styles} styles of mini64, one thread; forwards {FORWARDS}")
    say("| with | s a picture | this lever | in all | SSIM | PSNR, dB | GFLOP a picture |")
    say("|---|---|---|---|---|---|---|")
    exact: tuple[Tensor, float] | None = None
    before, best = 0.0, (0.0, 0.0, 0.0)
    for way in ways(compiled=compiled):
        base, style = opened(studio, way)
        flops = flops_of(base, style, way, images[:1], styles)
        seconds, pictures = seconds_of(base, style, way, images, styles)
        exact = exact or (pictures, seconds)
        similar = structural_similarity(exact[0], pictures).mean().item()
        say(
            f"| {way.name} | {seconds:.3f} | {(before or seconds) / seconds:.2f} | {exact[1] / seconds:.2f} "
            f"| {similar:.4f} | {psnr(exact[0], pictures):.1f} | {flops:.2f} |"
        )
        before = before if way.compiled or way.config.precision == "bf16" else seconds
        if not way.compiled and way.config.precision == "float32":
            best = (exact[1] / seconds, similar, seconds)
            floor = flops
    rate = core_rate()
    say(f"floor: {floor:.2f} GFLOP at the {rate:.0f} GFLOP/s that a core multiplies matrices with: "
        f"{floor / rate:.3f} s a picture, {floor / rate / best[2]:.0%} of what is spent")  # fmt: skip
    return best[0], best[1]


@torch.inference_mode()
def seconds_of(base: Base, style: Style, way: Way, images: Tensor, styles: int) -> tuple[float, Tensor]:
    """(seconds for a picture, the pictures of one style): the first style costs what all later ones do not."""
    codes: list[Codes] = [{} for _ in images]
    took = []
    for _ in range(2):
        start = time.process_time()
        pictures = way.run(base, style, images, codes)
        took.append(time.process_time() - start)
    return (took[0] + (styles - 1) * took[1]) / styles / len(images), pictures


@torch.inference_mode()
def flops_of(base: Base, style: Style, way: Way, image: Tensor, styles: int) -> float:
    """GFLOP for a picture: its part of the encoding, and the decoding. Convolutions and matrix products alone."""
    codes: Codes = {}
    with FlopCounterMode(display=False) as both:
        pictures_of(base, style, image, way.config, codes=codes)
    with FlopCounterMode(display=False) as decoding:
        pictures_of(base, style, image, way.config, codes=codes)
    first, later = both.get_total_flops(), decoding.get_total_flops()
    return (first + (styles - 1) * later) / styles / 1e9 if way.shared else first / 1e9


def opened(studio: Studio, way: Way) -> tuple[Base, Style]:
    base, style = studio.open(way.config.precision)
    if not way.channels_last:
        for module in (base.diffae.unet, base.diffae.encoder, style.unet):
            module.to(memory_format=torch.contiguous_format)
    if way.compiled:
        style.unet.compile()
        base.diffae.unet.compile()
        way.run(base, style, studio.photographs, [{} for _ in studio.photographs])  # to compile is paid once a process
    return base, style


def core_rate() -> float:
    """GFLOP/s of one thread, multiplying float32 matrices."""
    a = torch.rand(1024, 1024)
    a @ a
    start = time.process_time()
    for _ in range(5):
        a @ a
    return 5 * 2 * 1024**3 / (time.process_time() - start) / 1e9


def psnr(a: Tensor, b: Tensor) -> float:
    """Of pictures in [-1, 1], mean over pictures; dB, 99 for equal ones."""
    errors = (a - b).square().mean((1, 2, 3)).clamp(min=4e-10)
    return (10 * (4 / errors).log10()).mean().clamp(max=99).item()
