"""What a style costs: the release's loop and ours, on one base, in one run: ``python -m benchmarks.train_styles``.

The pace of every way is measured alone. Then every way trains the same references, and stylizes held-out photographs
as it goes; the judge says how near they came to the reference and what structure they kept. A way is as good as the
release's where both are as the release's were at its end. Seconds are those of the processor, or of a GPU. What is
measured already is not measured again: curves that were made on a GPU serve for paces of another machine.
"""

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console

from benchmarks.train_styles_parts.report import Curve, draw, equal, write_report
from benchmarks.train_styles_parts.runs import Settings, measure_curve, measure_pace
from benchmarks.train_styles_parts.ways import WAYS, pictures
from cluster.commandline.cli import ExitCode, JobFlags, parse_flags, run_job

console = Console(highlight=False, soft_wrap=True)


class TrainStylesBenchmarkFlags(JobFlags):
    """Measures what training a style costs, the release's way and ours, to equal pictures."""

    base: str = Field("mini64", description="Base: bundled name, path or s3:// URI.")
    device: str = Field("cpu", description="cpu, or cuda.")
    references: Path = Field(Path("samples/styles"), description="Folder of reference pictures.")
    styles: int = Field(16, gt=0, description="Styles: the references, then crops, then recoloured ones.")
    only: tuple[str, ...] = Field((), description="Styles by name, instead of all.")
    photos: Path = Field(Path("samples/portraits"), description="Folder of held-out photographs.")
    count: int = Field(8, gt=0, description="Photographs measured on, the first by name.")
    release_iterations: int = Field(6, gt=0, description="Iterations of the release's loop.")
    iterations: tuple[int, ...] = Field((8, 10, 14), description="Lengths that our ways are tried at, rising.")
    ways: tuple[str, ...] = Field(tuple(WAYS), description="Which ways; release is always among them.")
    at_once: int = Field(1, gt=0, description="Processes that make curves at the same time.")
    quick: bool = Field(False, description="One style.")
    out: Path = Field(
        Path("runs/train_styles_benchmark"),
        description="Folder of results and curves; give another when code or settings have changed.",
    )


def main() -> int:
    flags = parse_flags(TrainStylesBenchmarkFlags)
    only = flags.only or (("hokusai-great-wave",) if flags.quick else ())
    flags.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(**flags.model_dump(include=set(Settings.__dataclass_fields__)))
    styles = [name for name in pictures(flags.references, flags.styles) if not only or name in only]
    ways = [name for name in WAYS if name == "release" or name in flags.ways]
    judged = [name for name in ways if not WAYS[name].timed]
    paces = {}
    with _processes(1, once=True) as alone:
        for name in (name for name in ways if not WAYS[name].warm):
            path = flags.out / f"pace-{name}.json"
            paces[name] = _known(path, alone, partial(measure_pace, settings, name, styles[0], path))
            console.print(f"{name}: {paces[name]['seconds']:.3g} s an iteration", markup=False)
    if "warm" in ways:
        paces["warm"] = paces["adapters"]  # the same updates from another start
    curves = {}
    with _processes(flags.at_once) as pool, ThreadPoolExecutor(flags.at_once) as threads:
        for name in judged:
            targets = {style: curves["release", style][-1] for style in styles} if name != "release" else {}
            of = partial(_curve, flags, settings, pool, targets, name)
            curves |= {(name, style): curve for style, curve in zip(styles, threads.map(of, styles), strict=True)}
    report = write_report(styles, paces, curves)
    (flags.out / "report.md").write_text(report)
    draw(styles, paces, curves).save(flags.out / "curves.png")
    console.print(report, markup=False)
    return ExitCode.DONE


def _curve(
    flags: TrainStylesBenchmarkFlags,
    settings: Settings,
    pool: Executor,
    targets: dict[str, dict[str, float]],
    name: str,
    style: str,
) -> Curve:
    """Of the first length that ends as good as the release's, or of the longest."""
    curve: Curve = []
    for iterations in flags.iterations if targets else (flags.release_iterations,):
        path = flags.out / f"{name}-{style}-{iterations}.json"
        curve = _known(path, pool, partial(measure_curve, settings, name, style, iterations, path))
        console.print(f"{name} {style}: {curve[-1]}", markup=False)
        if targets and equal(curve[-1], targets[style]):
            break
    return curve


def _known(path: Path, pool: Executor, measure: Callable[[], None]) -> Any:
    """What is in the file, which is made first where it is missing."""
    if not path.exists():
        pool.submit(measure).result()
    return json.loads(path.read_text())


def _processes(count: int, *, once: bool = False) -> ProcessPoolExecutor:
    """``once``: one for each task, so that its memory is its own."""
    return ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1 if once else None
    )


if __name__ == "__main__":
    run_job(main)
