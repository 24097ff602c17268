"""What one process measures: the pace of a way, or the curve of a way on a style. Both are written as JSON."""

import io
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train_styles_parts.ways import WAYS, Way, pictures
from jobs.shared.bases import open_base
from osasis.base import Base
from osasis.checkpoint import load_style
from osasis.content import Content, draw_photos, encode_content
from osasis.finetune import Finetuner, decode_indices, make_reference
from osasis.image import decode_image, fit, to_tensor
from osasis.metrics import Judge, load_judge
from osasis.noise import starting_noise
from osasis.seeding import generator
from osasis.settings import StylizeConfig, TrainConfig, train_config
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize
from osasis.warm_start import WarmStart, evenly

_STYLIZING = StylizeConfig(quality="standard")
_WARM_UP, _TIMED = 1, 2
"""Iterations of a pace: the first brings what is made once, such as a GPU's kernels."""


@dataclass(frozen=True)
class Settings:
    """What all runs share."""

    base: str
    device: str
    references: Path
    styles: int
    photos: Path
    count: int
    out: Path

    def pictures(self) -> dict[str, Image.Image]:
        return pictures(self.references, self.styles)


def measure_pace(settings: Settings, name: str, style: str, path: Path) -> None:
    """Seconds an iteration, of the processor or of a GPU that has nothing else to do; memory, FLOP and bytes."""
    training, steps = _begin(settings, name, style, _WARM_UP + _TIMED)
    for _ in range(_WARM_UP):
        next(steps)
    started = _clock(training.base.device)
    for _ in range(_TIMED):
        next(steps)
    seconds = (_clock(training.base.device) - started) / _TIMED
    state = io.BytesIO()
    torch.save(training.state_dict(), state)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if training.base.device.type == "cuda":
        memory = torch.cuda.max_memory_reserved()
    pace = {
        "seconds": seconds,
        "flop": _flop(WAYS[name], training.config, training.base),
        "memory": memory,
        "bytes": len(training.checkpoint(style, "official")),
        "state_bytes": len(state.getvalue()),
        "device": torch.cuda.get_device_name() if training.base.device.type == "cuda" else "cpu",
    }
    path.write_text(json.dumps(pace))


def measure_curve(settings: Settings, name: str, style: str, iterations: int, path: Path) -> None:
    """Train, and measure four times and at the end; writes the finished style beside the curve."""
    training, steps = _begin(settings, name, style, iterations)
    base, judge = _base(settings.base, settings.device), _judge(settings.device)
    photos = torch.cat(
        [_tensor(decode_image(p.read_bytes()), base) for p in sorted(settings.photos.iterdir())[: settings.count]]
    )
    curve = []
    for _ in steps:
        done = training.iterations_done
        if done % min(4, max(1, iterations // 2)) == 0 or training.done:
            curve.append({"iteration": done} | _figures(training, base, judge, photos))
    path.with_suffix(".safetensors").write_bytes(training.checkpoint(style, "official"))
    path.write_text(json.dumps(curve))


def _begin(
    settings: Settings, name: str, style: str, iterations: int
) -> tuple[StyleTraining, Iterator[dict[str, float]]]:
    """A training and its iterations. Styles have the photo that the first way found."""
    torch.set_num_threads(1)
    base, way = _base(settings.base, settings.device), WAYS[name]
    config = train_config("official", base.spec.train_defaults, way.train, {"iterations": iterations})
    image = _tensor(settings.pictures()[style], base)
    counterpart = settings.out / f"photo-{style}.pt"
    photo = torch.load(counterpart, weights_only=True, map_location=base.device) if counterpart.exists() else None
    start = _nearest(settings, style, base) if way.warm else None
    training = StyleTraining(base, image, config, photo=photo, start=start)
    if photo is None:
        torch.save(training.reference.photo.cpu(), counterpart)
    if way.loop == "ours":
        return training, training.run()
    training.finetuner = _Release.from_base(base, training.reference, config)
    return training, _released(training)


def _clock(device: torch.device) -> float:
    """Seconds: of this process's processor time, or of the clock on a GPU."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _flop(way: Way, config: TrainConfig, base: Base) -> int:
    """Of the UNet in one iteration: what no implementation can do without."""
    x = torch.zeros(1, 3, base.image_size, base.image_size, device=base.device)
    z = torch.zeros(1, base.spec.encoder.out_channels, device=base.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        base.eps(x, torch.zeros(1, dtype=torch.long, device=base.device), z)
    updates = len(decode_indices(base.ddim(config.decode_steps), config.t0_ratio, matched=config.matched_t0))
    images = updates * (config.batch_size + 1) * (2 if config.adapter_rank else 3)
    if way.loop == "release":
        encoding = base.ddim(config.encode_steps).steps_to(config.t0_ratio)
        images += config.batch_size * (config.decode_steps + encoding) + encoding
    return counter.get_total_flops() * images


def _nearest(settings: Settings, style: str, base: Base) -> WarmStart:
    """The two styles trained by ``adapters``, others than this, whose pictures' CLIP embeddings are nearest."""
    known = settings.pictures()
    trained = {
        other: files[0]
        for other in known
        if other != style and (files := sorted(settings.out.glob(f"adapters-{other}-[0-9]*.safetensors")))
    }

    def embedded(name: str) -> Tensor:
        return base.clip.encode_image(_tensor(known[name], base))[0]

    mine = embedded(style)
    nearest = sorted(trained, key=lambda other: -float(embedded(other) @ mine))[:2]
    return evenly([load_style(trained[other], base) for other in nearest], nearest)


class _Release(Finetuner):
    """An update in the release's order: a UNet call for each branch, everything embedded anew."""

    def update(self, x_t: Tensor, i: int, content: Content, targets: Any) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            self._reference_embeddings = [(c(self.reference.photo), c(self.reference.style)) for c in self.clips]
        return super().update(x_t, i, content, self._targets(content))

    def eps(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return torch.cat([super().eps(x[:-1], t[:-1], z[:-1]), super().eps(x[-1:], t[-1:], z[-1:])])


def _released(training: StyleTraining) -> Iterator[dict[str, float]]:
    """The release's iterations: draw photographs, encode them, encode the style photo, an update at every step."""
    base, config, tuner = training.base, training.config, training.finetuner
    reference = training.reference
    while not training.done:
        rng = generator(config.seed, "release", training.iterations_done)
        noise = starting_noise(base.spec.unet, config.batch_size, rng).to(base.device)
        z_noise = torch.randn(config.batch_size, base.latent_prior[1].numel(), generator=rng).to(base.device)
        photos = draw_photos(base, noise, z_noise, steps=config.decode_steps)
        content = encode_content(base, photos, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=config.clamp)
        tuner.reference = make_reference(base, reference.style, reference.photo, config)
        steps = tuner.iteration(content)
        yield {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}


def _figures(training: StyleTraining, base: Base, judge: Judge, photos: Tensor) -> dict[str, float]:
    style = training.style("measured", "official")
    with torch.no_grad():
        results = stylize(style, encode(base, photos, encoding_for(style, _STYLIZING)), _STYLIZING)
    measured = judge.measure(photos, results, training.reference.style)
    training.finetuner.unet.train(training.config.dropout)
    return {"style": measured.style, "structure": measured.structure, "edges": measured.edges}


@cache
def _base(location: str, device: str) -> Base:
    return open_base(location, device)


@cache
def _judge(device: str) -> Judge:
    return load_judge(device)


def _tensor(picture: Image.Image, base: Base) -> Tensor:
    """[1, 3, S, S] in [-1, 1], on the base's device."""
    return to_tensor(fit(picture, base.image_size)[0])[None].to(base.device)
