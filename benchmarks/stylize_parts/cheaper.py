"""Time of the processor or the GPU for each (photograph, style) against the way of the release, lever by lever, and the
floor in FLOPs.

The release encodes for every style, runs every step of DDIM, and takes pictures one by one in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stylize_parts.device import busy_of, on_gpu, rate_of, seconds_of
from benchmarks.stylize_parts.studio import Studio
from osasis.base import Base
from osasis.checkpoint import Style
from osasis.method import Codes, pictures_of
from osasis.metrics import structural_similarity
from osasis.precision import Precision
from osasis.settings import FORWARDS, StylizeConfig

RELEASE_T0 = 0.5
"""Depth of the release: 50 of 100 steps to encode; mini64's styles are trained for 0.4."""

EXACT = StylizeConfig(t0_ratio=RELEASE_T0)

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Way:
    """How pictures are made. ``over``: the way that it adds one lever to."""

    name: str
    over: str = ""
    shared: bool = False
    batched: bool = False
    config: StylizeConfig = EXACT
    channels_last: bool = False
    compiled: str = ""
    """Mode of torch.compile."""

    @property
    def by_default(self) -> bool:
        """Whether --quality standard does it without being asked to."""
        return self.config.precision == "float32" and not self.compiled

    def run(self, base: Base, style: Style, images: Tensor, codes: list[Codes]) -> Tensor:
        """[B, 3, S, S]; ``codes``: of each image, or all in the first; found ones are added."""
        if self.batched:
            return pictures_of(base, style, images, self.config, codes=codes[0])
        parts = zip(images.split(1), codes, strict=False)  # ``images`` may be the first alone
        return torch.cat(
            [pictures_of(base, style, image, self.config, codes=known if self.shared else {}) for image, known in parts]
        )


def ways(*, gpu: bool, compiled: bool) -> list[Way]:
    """Each with one lever more than another; bf16 and compilation, which are off by default, come last."""
    found = [Way("the release's way")]

    def then(name: str, before: Way | None = None, **changes: object) -> Way:
        before = before or found[-1]
        found.append(replace(before, name=name, over=before.name, **changes))  # type: ignore[arg-type]  # fields of Way
        return found[-1]

    then("one encoding for all styles", shared=True)
    then("the solver of --quality standard", config=StylizeConfig(t0_ratio=RELEASE_T0, quality="standard"))
    then("batches", batched=True)
    fast = then("channels_last", channels_last=True)
    bf16 = then("bf16", config=fast.config.model_copy(update={"precision": "bf16"}))
    if compiled and gpu:
        then("bf16 and torch.compile", bf16, compiled="default")
        then("bf16 and torch.compile with CUDA graphs", bf16, compiled="reduce-overhead")
    elif compiled:
        then("torch.compile, instead of bf16", fast, compiled="default")
    return found


@dataclass(frozen=True)
class Cost:
    """Of a picture in a style, and the pictures of the first style."""

    seconds: float
    gflop: float
    pictures: Tensor
    busy: float | None
    """Share of the time of a later style in which the GPU computed."""


def measure(studio: Studio, styles: int, *, compiled: bool, say: Callable[[str], None]) -> tuple[float, float]:
    """(times cheaper, SSIM) of the cheapest way that is on by default: without bf16 and compilation."""
    gpu = on_gpu(studio.device)
    where = f"{torch.cuda.get_device_name(studio.device)}, PyTorch {torch.__version__}" if gpu else "one thread"
    say(f"{len(studio.photographs)} photographs in {styles} styles, {where}; forwards {FORWARDS}")
    if studio.style is None:
        say("weights are random: SSIM and PSNR say nothing")
    rates = {precision: rate_of(studio.device, dtype) for precision, dtype in DTYPES.items()}
    say("| with | s a picture | this lever | in all | SSIM | PSNR, dB | GFLOP a picture "
        "| GFLOP/s, of what matrices reach | GPU computing |")  # fmt: skip
    say("|---|---|---|---|---|---|---|---|---|")
    costs: dict[str, Cost] = {}
    for way in ways(gpu=gpu, compiled=compiled):
        try:
            cost = costs[way.name] = cost_of(studio, way, styles)
        except Exception as error:
            if not way.compiled:
                raise
            say(f"| {way.name} | failed: {type(error).__name__}: {str(error).strip().splitlines()[:1]} |")
            continue
        say(_row(way, cost, costs, rates[way.config.precision]))
        if way.by_default:
            best = cost
    exact, rate = costs["the release's way"], rates["float32"]
    say(f"floor: {best.gflop:.2f} GFLOP at the {rate:,.0f} GFLOP/s that float32 matrices are multiplied with: "
        f"{best.gflop / rate:.4f} s a picture, {best.gflop / rate / best.seconds:.0%} of what is spent")  # fmt: skip
    return exact.seconds / best.seconds, structural_similarity(exact.pictures, best.pictures).mean().item()


def _row(way: Way, cost: Cost, costs: dict[str, Cost], rate: float) -> str:
    exact, reached = costs["the release's way"], cost.gflop / cost.seconds
    similar = structural_similarity(exact.pictures, cost.pictures).mean().item()
    return (
        f"| {way.name} | {cost.seconds:.4f} | {costs.get(way.over, cost).seconds / cost.seconds:.2f} "
        f"| {exact.seconds / cost.seconds:.2f} | {similar:.4f} | {psnr(exact.pictures, cost.pictures):.1f} "
        f"| {cost.gflop:.2f} | {reached:,.0f}, {reached / rate:.0%} "
        f"| {'' if cost.busy is None else f'{cost.busy:.1%}'} |"
    )


@torch.inference_mode()
def cost_of(studio: Studio, way: Way, styles: int) -> Cost:
    """Where codes are shared, the first style costs what all later ones do not."""
    base, style = studio.open(way.config.precision)
    images, device = studio.photographs, studio.device
    if not way.channels_last:
        for module in (base.diffae.unet, base.diffae.encoder, style.unet):
            module.to(memory_format=torch.contiguous_format)
    gflop = gflop_of(base, style, way, images[:1], styles)
    made: list[tuple[list[Codes], Tensor]] = []

    def anew() -> None:
        codes: list[Codes] = [{} for _ in images]
        made[:] = [(codes, way.run(base, style, images, codes))]

    if way.compiled:
        for network in (style.unet, base.diffae.unet):
            network.compile(mode=way.compiled)
        anew()  # to compile is paid once a process
    first = later = seconds_of(anew, device)
    codes, pictures = made[0]
    if way.shared:
        later = seconds_of(lambda: way.run(base, style, images, codes), device)
    busy = None
    if on_gpu(device):
        some = images if way.batched else images[:1]
        busy = busy_of(lambda: way.run(base, style, some, codes), device)
    return Cost((first + (styles - 1) * later) / styles / len(images), gflop, pictures, busy)


@torch.inference_mode()
def gflop_of(base: Base, style: Style, way: Way, image: Tensor, styles: int) -> float:
    """For a picture: its part of the encoding, and the decoding. Convolutions and matrix products alone."""
    codes: Codes = {}
    with FlopCounterMode(display=False) as both:
        pictures_of(base, style, image, way.config, codes=codes)
    with FlopCounterMode(display=False) as decoding:
        pictures_of(base, style, image, way.config, codes=codes)
    first, later = both.get_total_flops(), decoding.get_total_flops()
    return (first + (styles - 1) * later) / styles / 1e9 if way.shared else first / 1e9


def psnr(a: Tensor, b: Tensor) -> float:
    """Of pictures in [-1, 1], mean over pictures; dB, 99 for equal ones."""
    errors = (a - b).square().mean((1, 2, 3)).clamp(min=4e-10)
    return (10 * (4 / errors).log10()).mean().clamp(max=99).item()
