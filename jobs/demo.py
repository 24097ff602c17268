"""``make demo``: two styles trained, the bundled portraits stylized with both, a gallery; real jobs throughout."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from rich.console import Console
from rich.table import Table

from catalog.manifest import Manifest
from catalog.schema import StyleVersion
from catalog.store import StyleCatalog
from cluster.commandline.cli import ExitCode, JobFlags, OutputUri, Uri, parse_flags, run_job
from cluster.storage import Storage
from jobs.shared.gallery import Gallery, read_gallery
from jobs.shared.measuring import measure
from osasis.image import encode_image
from osasis.metrics import load_judge
from osasis.upsampling import Detail

JOBS = Path(__file__).resolve().parent
ROOT = next(folder for folder in (JOBS, JOBS.parent) if (folder / "samples").is_dir())
"""What holds ``samples``: the checkout or, of an installed wheel, the package."""

console = Console(highlight=False, soft_wrap=True)


class DemoFlags(JobFlags):
    """Train the two styles of samples/demo.yaml, stylize 24 portraits with both, and make a gallery."""

    examples: ClassVar[tuple[str, ...]] = (
        "--storage runs/demo",
        "--config samples/seven.yaml --storage runs/seven --limit 12",
    )

    config: Uri = Field(
        "samples/demo.yaml", description="Styles file; samples/seven.yaml has every reference of samples/styles."
    )
    storage: OutputUri = Field("runs/demo", validate_default=True, description="Where everything goes.")
    iterations: int | None = Field(
        None, gt=0, description="Training iterations instead of the base's; fewer are quicker and show less style."
    )
    limit: int | None = Field(None, gt=0, description="Only the first N portraits.")
    size: str = Field("original", description="Size of the pictures, as stylize takes it; the portraits have 256.")
    detail: Detail = Field("residual", description="How the base's pictures are enlarged, as stylize takes it.")


def main() -> int:
    flags = parse_flags(DemoFlags)
    storage = Storage.open(flags.storage)
    output = storage.child("stylized")
    started = time.monotonic()
    own = Path(flags.config)
    train = ["train_styles", "--config", str(own.resolve()) if own.is_file() else flags.config]
    train += ["--storage", storage.uri]
    if flags.iterations:
        train += ["--train.iterations", str(flags.iterations)]
    stylize = ["stylize", "--storage", storage.uri, "--input", "samples/portraits", "--styles", "all"]
    stylize += ["--output", output.uri, "--size", flags.size, "--detail", flags.detail, "--scores"]
    if flags.limit:
        stylize += ["--limit", str(flags.limit)]
    if flags.dry_run:
        for command in (train, stylize):
            console.print(_shown(command), markup=False)
        return ExitCode.DONE
    seconds = {"train": _run("1/3 Training the styles", train), "stylize": _run("2/3 Stylizing the portraits", stylize)}

    console.rule("3/3 Gallery")
    versions = StyleCatalog.open(storage).resolve("all")
    columns = ["input_uri", "style_id", "version", "output_uri", "transform", "structure", "style", "flags"]
    rows = Manifest(output).rows(columns, status="done")
    gallery = read_gallery(rows, versions)
    sheet = gallery.sheet(blocks=3 if len(versions) < 4 else 1)
    storage.write_bytes("gallery.png", encode_image(sheet))
    storage.write_bytes("gallery.html", gallery.html("OSASIS on Ray"))
    console.print(_table(versions, rows))
    _print_measures(gallery)
    console.print(
        f"training {seconds['train']:.0f} s, stylizing {seconds['stylize']:.0f} s, "
        f"{time.monotonic() - started:.0f} s in all"
    )
    for name in ("gallery.html", "gallery.png"):
        console.print(f"[bold]look at[/bold] {storage.child_uri(name)}")
    return ExitCode.DONE


def _run(title: str, command: list[str]) -> float:
    """Run a job as a person would, in the folder that holds the samples; its exit code is ours if it is not 0."""
    console.rule(title)
    console.print("$ " + _shown(command), markup=False)
    started = time.monotonic()
    job, *arguments = command
    if code := _wait(subprocess.Popen([sys.executable, str(JOBS / f"{job}.py"), *arguments], cwd=ROOT)):
        sys.exit(code)
    return time.monotonic() - started


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code. A job that is told to stop does so in its own way: it is waited for, never killed halfway."""
    previous = {
        number: signal.signal(number, lambda told, _: process.send_signal(told))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        while True:
            with suppress(KeyboardInterrupt):  # the terminal sends Ctrl-C to the job as well
                return process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _shown(command: list[str]) -> str:
    job, *arguments = command
    program = f"osasis-{job.replace('_', '-')}" if ROOT == JOBS else f"python jobs/{job}.py"
    return " ".join([program, *arguments])


def _table(versions: list[StyleVersion], rows: list[dict[str, str]]) -> Table:
    table = Table("style", "version", "images done", "training s", "structure kept", title="The demo's styles")
    for v in versions:
        done = sum((row["style_id"], int(row["version"])) == (v.style_id, v.version) for row in rows)
        structure = f"{v.metrics.get('structure', float('nan')):.2f}"
        table.add_row(v.style_id, str(v.version), str(done), f"{v.train_seconds:.0f}", structure)
    return table


def command() -> None:
    """The job as a console script."""
    run_job(main)


def _print_measures(gallery: Gallery) -> None:
    """The judge's figures, where its network is installed."""
    try:
        judge = load_judge()
    except ImportError as error:
        console.print(f"not measured: {error}", markup=False)
        return
    table = Table("", "style distance", "structure distance", "edges", title="Measured (photographs: 1.00, 0, 1)")
    for m in measure(gallery, judge):
        for name, figures in ((str(m.style), m.ours), ("  colour transfer to its reference", m.color_transfer)):
            table.add_row(name, f"{figures.style:.2f}", f"{figures.structure:.3f}", f"{figures.edges:.2f}")
    console.print(table)


if __name__ == "__main__":
    command()
