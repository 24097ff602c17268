"""What a style costs: the release's loop and ours, on one base, in one run: ``python benchmarks/train_styles.py``.

Every way trains the same references, and stylizes held-out photographs as it goes; the judge says how near they came
to the reference and what structure they kept. A way is as good as the release's where both are as the release's were at
its end. Processor seconds count training alone. What is measured already is not measured again.
"""

import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw
from pydantic import Field
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cluster.commandline.cli import ExitCode, JobFlags, parse_flags, run_job
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
from osasis.stylize import Encoding, encode, encoding_for, stylize
from osasis.warm_start import WarmStart, evenly

console = Console(highlight=False, soft_wrap=True)
STYLE_ROOM, STRUCTURE_ROOM = 0.01, 0.005
"""How much worse still counts as equal: what another seed changes."""
_STYLIZING = StylizeConfig(quality="standard")


Results = dict[tuple[str, str], list[dict[str, Any]]]
"""The runs of a way on a style."""


@dataclass(frozen=True)
class Way:
    """One way to train: a loop and settings over the base's own."""

    lever: str
    loop: Literal["release", "ours"] = "ours"
    train: dict[str, Any] = field(default_factory=dict)
    timed: bool = False
    """Its updates are those of the way before it: only their time is measured."""
    warm: bool = False
    """It begins at the average of the two styles that were trained by ``adapters`` and are nearest."""


_RELEASE = {
    "batch_size": 8, "rate_decay": 0.0, "precision": "float32", "spn_width": 128, "adapter_rank": 0,
}  # fmt: skip
_BF16 = _RELEASE | {"precision": "bf16"}
_SMALL = _BF16 | {"batch_size": 2, "rate_decay": 0.6}
_THIN = _SMALL | {"spn_width": 16}
_ADAPTERS = _THIN | {"adapter_rank": 4, "learning_rate": 3e-3}
WAYS = {
    "release": Way("the release's order of work", "release", _RELEASE),
    "bank": Way("content bank, constants once, one UNet call", train=_RELEASE, timed=True),
    "bf16": Way("bf16", train=_BF16, timed=True),
    "batch": Way("two contents an update, falling rate", train=_SMALL),
    "spn": Way("SPN of 16 channels", train=_THIN),
    "adapters": Way("adapters of rank 4", train=_ADAPTERS),
    "warm": Way("warm start at the two nearest styles", train=_ADAPTERS, warm=True),
}
"""Each adds one lever to the one before."""


class TrainStylesBenchmarkFlags(JobFlags):
    """Measures what training a style costs, the release's way and ours, to equal pictures."""

    base: str = Field("mini64", description="Base: bundled name, path or s3:// URI.")
    references: Path = Field(Path("samples/styles"), description="Folder of reference pictures.")
    styles: int = Field(16, gt=0, description="Styles: the references, then crops, then recoloured ones.")
    only: tuple[str, ...] = Field((), description="Styles by name, instead of all.")
    photos: Path = Field(Path("samples/portraits"), description="Folder of held-out photographs.")
    count: int = Field(8, gt=0, description="Photographs measured on, the first by name.")
    release_iterations: int = Field(28, gt=0, description="Iterations of the release's loop.")
    release_on: tuple[str, ...] = Field(
        (),
        description="Styles trained by the release's loop, default: all; for the others ``bank`` stands in, which makes"
        " the same updates, at the pace that the release's loop has on these.",
    )
    iterations: tuple[int, ...] = Field((8, 10, 14, 20, 28), description="Lengths that our ways are tried at, rising.")
    sources: tuple[str, ...] = Field((), description="Styles trained for the warm start alone.")
    ways: tuple[str, ...] = Field((), description=f"Of {', '.join(WAYS)}; default: all.")
    quick: bool = Field(False, description="One style, 6 iterations of the release's loop.")
    out: Path = Field(
        Path("runs/train_styles_benchmark"),
        description="Folder of results and curves; give another when code or settings have changed.",
    )


@dataclass(frozen=True)
class Job:
    """One way on one style; ``iterations``: in all."""

    way: str
    style: str
    iterations: int
    flags: TrainStylesBenchmarkFlags

    @property
    def path(self) -> Path:
        return self.flags.out / f"{self.way}-{self.style}-{self.iterations}.json"


def main() -> int:
    flags = parse_flags(TrainStylesBenchmarkFlags)
    if flags.quick:
        only = flags.only or ("hokusai-great-wave",)
        sources = ("van-gogh-1889", "van-gogh-bedroom")
        flags = flags.model_copy(
            update={"only": only, "sources": sources, "release_iterations": 6, "iterations": (8, 10, 14)}
        )
    flags.out.mkdir(parents=True, exist_ok=True)
    styles = [name for name in _pictures(flags.references, flags.styles) if not flags.only or name in flags.only]
    results: Results = {}
    compared = {"release", "bank"} if flags.release_on else {"release"}
    ways = [name for name in WAYS if name in compared or name in (flags.ways or WAYS)]
    if "warm" in ways:
        for style in flags.sources:
            _measured("adapters", style, flags.model_copy(update={"iterations": flags.iterations[:1]}), {})
    for name in ways:
        for style in styles:
            if name != "release" or _by_release(style, flags):
                results[name, style] = _measured(name, style, flags, results)
    report = _report(ways, styles, results)
    (flags.out / "report.md").write_text(report)
    _draw(ways, styles, results).save(flags.out / "curves.png")
    console.print(report, markup=False)
    return ExitCode.DONE


def _measured(name: str, style: str, flags: TrainStylesBenchmarkFlags, known: Results) -> list[dict[str, Any]]:
    """The runs of one way on one style, up to the first that is as good as the release's."""
    way = WAYS[name]
    timed = way.timed and (name != "bank" or _by_release(style, flags))
    whole = (flags.release_iterations,)
    lengths = (1,) if timed else whole if name in ("release", "bank") else flags.iterations
    target = _target(style, known)
    runs: list[dict[str, Any]] = []
    for iterations in lengths:
        job = Job(name, style, iterations, flags)
        if not job.path.exists():
            # A process of its own, so that its memory is its own.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                pool.submit(run, job).result()
        runs.append(json.loads(job.path.read_text()))
        last = runs[-1]["curve"][-1]
        console.print(f"{name} {style}: {iterations} iterations, {last}", markup=False)
        if not timed and target and _equal(last, target["curve"][-1]):
            break
    return runs


def _by_release(style: str, flags: TrainStylesBenchmarkFlags) -> bool:
    return not flags.release_on or style in flags.release_on


def _target(style: str, results: Results) -> dict[str, Any] | None:
    """The run whose end the other ways of a style have to reach."""
    runs = results.get(("release", style)) or results.get(("bank", style))
    return runs[-1] if runs else None


def _equal(ours: dict[str, float], release: dict[str, float]) -> bool:
    return ours["style"] <= release["style"] + STYLE_ROOM and ours["structure"] <= release["structure"] + STRUCTURE_ROOM


def run(job: Job) -> None:
    """Train, measure, and write the result; a run that was cut goes on from its last measured point."""
    torch.set_num_threads(1)
    flags, way = job.flags, WAYS[job.way]
    base, judge = open_base(flags.base, "cpu"), load_judge()
    config = train_config("official", base.spec.train_defaults, way.train, {"iterations": job.iterations})
    picture = _pictures(flags.references, flags.styles)[job.style]
    photos = torch.cat(
        [_tensor(decode_image(p.read_bytes()), base) for p in sorted(flags.photos.iterdir())[: flags.count]]
    )
    state_file = job.path.with_suffix(".pt")
    state = torch.load(state_file, weights_only=True) if state_file.exists() else None
    counterpart = flags.out / f"photo-{job.style}.pt"
    photo = torch.load(counterpart, weights_only=True) if counterpart.exists() else None
    started = time.process_time()
    training = StyleTraining(
        base,
        _tensor(picture, base),
        config,
        photo=photo,
        state=state and state["training"],
        start=_nearest(job, base) if way.warm else None,
    )
    setup = time.process_time() - started
    torch.save(training.reference.photo, counterpart)
    steps = training.run()
    if way.loop == "release":
        training.finetuner = _Release.from_base(base, training.reference, config)
        if state:
            training.finetuner.load_state_dict(state["training"]["finetuner"])
        steps = released(training)
    curve, seconds = (state["curve"], state["seconds"]) if state else ([], 0.0)
    every = max(1, min(4, job.iterations // 2))
    while not training.done:
        started = time.process_time()
        next(steps)
        seconds += time.process_time() - started
        done = training.iterations_done
        if done % every == 0 or training.done:
            point = {"iteration": done, "seconds": seconds}
            curve.append(point if job.iterations == 1 else point | _figures(training, base, judge, photos))
        if way.loop == "release" or done % every == 0:
            torch.save({"training": training.state_dict(), "curve": curve, "seconds": seconds}, state_file)
    checkpoint = training.checkpoint(job.style, "official")
    job.path.with_suffix(".safetensors").write_bytes(checkpoint)
    result = {
        "curve": curve,
        "setup": setup,
        "bytes": len(checkpoint),
        "state_bytes": state_file.stat().st_size,
        "flop": _flop(way, config, base),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    job.path.write_text(json.dumps(result))
    state_file.unlink()


def _flop(way: Way, config: TrainConfig, base: Base) -> int:
    """Of the UNet in one iteration: what no implementation can do without."""
    x = torch.zeros(1, 3, base.image_size, base.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        base.eps(x, torch.zeros(1, dtype=torch.long), torch.zeros(1, base.spec.encoder.out_channels))
    updates = len(decode_indices(base.ddim(config.decode_steps), config.t0_ratio, matched=config.matched_t0))
    images = updates * (config.batch_size + 1) * (2 if config.adapter_rank else 3)
    if way.loop == "release":
        encode = base.ddim(config.encode_steps).steps_to(config.t0_ratio)
        images += config.batch_size * (config.decode_steps + encode) + encode
    return counter.get_total_flops() * images


def _nearest(job: Job, base: Base) -> WarmStart:
    """The two styles trained by ``adapters``, others than this, whose pictures' CLIP embeddings are nearest."""
    pictures = _pictures(job.flags.references, job.flags.styles)
    trained = {
        style: files[0]
        for style in pictures
        if style != job.style and (files := sorted(job.flags.out.glob(f"adapters-{style}-[0-9]*.safetensors")))
    }

    def embedded(style: str) -> Tensor:
        return base.clip.encode_image(_tensor(pictures[style], base))[0]

    mine = embedded(job.style)
    nearest = sorted(trained, key=lambda style: -float(embedded(style) @ mine))[:2]
    return evenly([load_style(trained[style], base) for style in nearest], nearest)


class _Release(Finetuner):
    """An update in the release's order: a UNet call for each branch, everything embedded anew."""

    def update(self, x_t: Tensor, i: int, content: Content, targets: Any) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            self._reference_embeddings = [(c(self.reference.photo), c(self.reference.style)) for c in self.clips]
        return super().update(x_t, i, content, self._targets(content))

    def eps(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return torch.cat([super().eps(x[:-1], t[:-1], z[:-1]), super().eps(x[-1:], t[-1:], z[-1:])])


def released(training: StyleTraining) -> Iterator[dict[str, float]]:
    """The release's iterations: draw photographs, encode them, encode the style photo, an update at every step."""
    base, config, tuner = training.base, training.config, training.finetuner
    reference = training.reference
    while not training.done:
        rng = generator(config.seed, "release", training.iterations_done)
        noise = starting_noise(base.spec.unet, config.batch_size, rng)
        z_noise = torch.randn(config.batch_size, base.latent_prior[1].numel(), generator=rng)
        photos = draw_photos(base, noise, z_noise, steps=config.decode_steps)
        content = encode_content(base, photos, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=config.clamp)
        tuner.reference = make_reference(base, reference.style, reference.photo, config)
        steps = tuner.iteration(content)
        yield {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}


def _figures(training: StyleTraining, base: Base, judge: Judge, photos: Tensor) -> dict[str, float]:
    style = training.style("measured", "official")
    with torch.no_grad():
        results = stylize(style, _encoded(base, photos, encoding_for(style, _STYLIZING)), _STYLIZING)
    measured = judge.measure(photos, results, training.reference.style)
    training.finetuner.unet.train(training.config.dropout)
    return {"style": measured.style, "structure": measured.structure, "edges": measured.edges}


_codes: dict[Encoding, Content] = {}


def _encoded(base: Base, photos: Tensor, encoding: Encoding) -> Content:
    if encoding not in _codes:
        _codes[encoding] = encode(base, photos, encoding)
    return _codes[encoding]


def _pictures(folder: Path, count: int) -> dict[str, Image.Image]:
    """The references; then their upper left two thirds; then with red and blue exchanged."""
    whole = {path.stem: decode_image(path.read_bytes()) for path in sorted(folder.glob("*.jpg"))}
    found = dict(whole)
    for name, picture in whole.items():
        found[f"{name}-crop"] = picture.crop((0, 0, picture.width * 2 // 3, picture.height * 2 // 3))
    for name, picture in whole.items():
        found[f"{name}-recoloured"] = Image.merge("RGB", picture.convert("RGB").split()[::-1])
    return dict([*found.items()][:count])


def _tensor(picture: Image.Image, base: Base) -> Tensor:
    """[1, 3, S, S] in [-1, 1]."""
    return to_tensor(fit(picture, base.image_size)[0])[None]


def _report(ways: list[str], styles: list[str], results: Results) -> str:
    """Tables of all ways, means over styles, and of every style; the last line, ``cheaper: N.N``, is of the cheapest
    way that is equal on all."""
    lines = [
        "| way | what it adds | s an iteration | TFLOP | iterations | s to equal quality | times cheaper | style |"
        " structure | edges | MB stored | MB of a state | peak MB |",
        "|---" * 13 + "|",
    ]
    cheaper, release = 0.0, _release_points(styles, results)
    each: dict[str, list[str]] = {style: [f"{release[style]['seconds']:.0f}"] for style in styles}
    judged = [name for name in ways if name != "release" and not WAYS[name].timed]
    for name in ways:
        runs = [results[name, style][-1] for style in styles if (name, style) in results]
        ends = [run["curve"][-1] for run in runs]
        row = [name, WAYS[name].lever, f"{_mean([end['seconds'] / end['iteration'] for end in ends]):.2f}"]
        row += [f"{_mean([run['flop'] for run in runs]) / 1e12:.2f}"]
        if WAYS[name].timed:
            row += [""] * 6
        else:
            points = release if name == "release" else {s: _reached(name, s, results) for s in styles}
            seconds = _mean([point["seconds"] for point in points.values()])
            times = _mean([point["seconds"] for point in release.values()]) / seconds
            equal = [style for style in styles if points[style]["equal"]]
            if len(equal) == len(styles):
                cheaper = max(cheaper, times)
            row += [f"{_mean([point['iteration'] for point in points.values()]):.1f}"]
            row += [f"{seconds:.0f} (equal on {len(equal)} of {len(styles)})", f"{times:.1f}"]
            row += [f"{_mean([p[figure] for p in points.values()]):.3f}" for figure in ("style", "structure", "edges")]
            for style, point in points.items() if name in judged else ():
                each[style] += [f"{point['seconds']:.0f}" + ("" if point["equal"] else " (not equal)")]
                each[style] += [f"{release[style]['seconds'] / point['seconds']:.1f}"]
        row += [f"{_mean([run[size] for run in runs]) / 1e6:.2f}" for size in ("bytes", "state_bytes")]
        row += [f"{_mean([run['memory'] for run in runs]) / 1e6:.0f}"]
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", f"| style, s to equal quality | release | {' | '.join(f'{name} | times' for name in judged)} |"]
    lines += ["|---" * (2 + 2 * len(judged)) + "|"]
    lines += [f"| {style} | {' | '.join(cells)} |" for style, cells in each.items()]
    return "\n".join([*lines, "", f"cheaper: {cheaper:.1f}"])


def _release_points(styles: list[str], results: Results) -> dict[str, dict[str, Any]]:
    """Where the release's loop first was as good as at its end, by style; of stand-ins, at the pace of its loop."""
    ends = [runs[-1]["curve"][-1] for (way, _), runs in results.items() if way == "release"]
    pace = _mean([end["seconds"] / end["iteration"] for end in ends]) if ends else float("nan")
    points = {}
    for style in styles:
        own = ("release", style) in results
        point = _reached("release" if own else "bank", style, results)
        points[style] = point if own else point | {"seconds": pace * point["iteration"]}
    return points


def _reached(way: str, style: str, results: Results) -> dict[str, Any]:
    """The first point of the last run that is as good as the release's end, or its last point."""
    curve, target = results[way, style][-1]["curve"], _target(style, results)
    for point in curve:
        if target is None or _equal(point, target["curve"][-1]):
            return point | {"equal": True}
    return curve[-1] | {"equal": False}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _draw(ways: list[str], styles: list[str], results: Results) -> Image.Image:
    """Style distance (above) and structure distance (below) by processor seconds, one line a way and style."""
    width, height, margin = 900, 320, 40
    image = Image.new("RGB", (width, 2 * height), "white")
    pen = ImageDraw.Draw(image)
    shown = [name for name in ways if not WAYS[name].timed]
    hues = ["black", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e"]
    colors = {name: hues[i % len(hues)] for i, name in enumerate(shown)}
    curves = [(n, r["curve"]) for n in shown for s in styles for r in results.get((n, s), ())]
    right = max(point["seconds"] for _, curve in curves for point in curve)
    for part, figure in enumerate(("style", "structure")):
        top = max(point[figure] for _, curve in curves for point in curve)
        foot = height * (part + 1) - margin
        pen.line([(margin, foot), (width - margin, foot)], "gray")
        pen.text(
            (margin, height * part + 5),
            f"{figure} distance, 0 to {top:.2f}; 0 to {right:.0f} processor seconds",
            "black",
        )
        for name, curve in curves:
            spots = [
                (margin + p["seconds"] / right * (width - 2 * margin), foot - p[figure] / top * (height - 2 * margin))
                for p in curve
            ]
            pen.line(spots, colors[name], 2)
    for row, name in enumerate(shown):
        pen.text((width - 140, 20 + 12 * row), name, colors[name])
    return image


if __name__ == "__main__":
    run_job(main)
