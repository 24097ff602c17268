"""``make demo``: two styles trained, the bundled portraits stylized with both, a gallery; real jobs throughout."""

import subprocess
import sys
import time
from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.table import Table

from catalog.manifest import Manifest
from catalog.schema import StyleVersion
from catalog.store import StyleCatalog
from cluster.commandline.cli import ExitCode, JobFlags, parse_flags, run_job
from cluster.storage import Storage
from jobs.shared.gallery import read_gallery

ROOT = Path(__file__).resolve().parents[1]
console = Console(highlight=False, soft_wrap=True)


class DemoFlags(JobFlags):
    """Trains the two styles of samples/demo.yaml, stylizes 24 portraits with both, and writes a gallery."""

    config: str = "samples/demo.yaml"
    """Styles file; samples/seven.yaml has every reference of samples/styles."""
    storage: str = "runs/demo"
    """Where everything goes: path or s3:// URI."""
    iterations: int | None = Field(None, gt=0)
    """Training iterations instead of the base's; fewer are quicker and show less style."""
    limit: int | None = Field(None, gt=0)
    """Only the first so many portraits."""


def main() -> int:
    flags = parse_flags(DemoFlags)
    storage = Storage.open(flags.storage)
    output = storage.child("stylized")
    started = time.monotonic()
    train = ["jobs/train_styles.py", "--config", flags.config, "--storage", storage.uri]
    if flags.iterations:
        train += ["--train.iterations", str(flags.iterations)]
    stylize = ["jobs/stylize.py", "--storage", storage.uri, "--input", "samples/portraits", "--styles", "all"]
    stylize += ["--output", output.uri]
    if flags.limit:
        stylize += ["--limit", str(flags.limit)]
    seconds = {"train": _run("1/3 Training the styles", train), "stylize": _run("2/3 Stylizing the portraits", stylize)}

    console.rule("3/3 Gallery")
    versions = StyleCatalog.open(storage).resolve("all")
    rows = Manifest(output).rows(["input_uri", "style_id", "version", "output_uri", "transform"], status="done")
    gallery = read_gallery(rows, versions)
    storage.write_bytes("gallery.png", gallery.png(blocks=3 if len(versions) < 4 else 1))
    storage.write_bytes("gallery.html", gallery.html("OSASIS on Ray"))
    console.print(_table(versions, rows))
    console.print(
        f"training {seconds['train']:.0f} s, stylizing {seconds['stylize']:.0f} s, "
        f"{time.monotonic() - started:.0f} s in all"
    )
    for name in ("gallery.html", "gallery.png"):
        console.print(f"[bold]look at[/bold] {storage.child_uri(name)}")
    return ExitCode.DONE


def _run(title: str, command: list[str]) -> float:
    """Run a job as a person would, from the project's root; its exit code is ours if it is not 0."""
    console.rule(title)
    console.print("$ python " + " ".join(command))
    started = time.monotonic()
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)
    return time.monotonic() - started


def _table(versions: list[StyleVersion], rows: list[dict[str, str]]) -> Table:
    table = Table("style", "version", "images done", "training s", "structure kept", title="The demo's styles")
    for v in versions:
        done = sum((row["style_id"], int(row["version"])) == (v.style_id, v.version) for row in rows)
        structure = f"{v.metrics.get('structure', float('nan')):.2f}"
        table.add_row(v.style_id, str(v.version), str(done), f"{v.train_seconds:.0f}", structure)
    return table


if __name__ == "__main__":
    run_job(main)
