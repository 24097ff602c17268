"""What stylizing costs: ``python benchmarks/stylize.py [--quick]``.

- ``cheaper``: processor time for each (photograph, style) against the way of the release, which encodes for every
  style, runs every step of DDIM and takes pictures one by one in float32; each lever's share, and SSIM to that way.
- ``planning``: time and memory of a rerun with nothing to do, by rows of the manifest.

Styles are stand-ins: the base's weights, conditioned on the codes of reference pictures. Times are of the processor, so
that what else the machine does counts little. The last line is ``cheaper: N.N at SSIM 0.NNN``.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from deltalake import write_deltalake
from torch import Tensor

from catalog.manifest import SCHEMA, Manifest
from cluster.storage import Storage
from jobs.streaming.listing import Item
from jobs.streaming.planning import Plan, Tally
from jobs.streaming.variants import Variant
from osasis.base import Base, bundled_bases, load_base
from osasis.checkpoint import Style
from osasis.image import decode_image, fit, to_tensor
from osasis.method import Codes, pictures_of
from osasis.metrics import structural_similarity
from osasis.settings import FORWARDS, StylizeConfig
from osasis.strength import no_style

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
EXACT, STANDARD = StylizeConfig(), StylizeConfig(quality="standard")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pictures and rows: within ten minutes on two cores")
    parser.add_argument("--styles", type=int, default=8)
    parser.add_argument("--photographs", type=int, help="default: 8, or 2 with --quick")
    parser.add_argument("--only", choices=("cheaper", "planning"), help="one part of it")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)  # of one manifest, in a process of its own
    flags = parser.parse_args()
    if flags.rows:
        return measure_rerun(flags.rows)
    if flags.only in (None, "planning"):
        for rows in (100_000, 1_000_000) if flags.quick else (100_000, 1_000_000, 10_000_000):
            subprocess.run([sys.executable, __file__, f"--rows={rows}"], check=True)
    if flags.only in (None, "cheaper"):
        measure_cheaper(flags.photographs or (2 if flags.quick else 8), flags.styles)


def measure_cheaper(photographs: int, styles: int) -> None:
    """Print each lever's share and the sum of them."""
    torch.set_num_threads(1)
    base = load_base(bundled_bases()["mini64"], "cpu")
    images = torch.stack([picture(base, path) for path in sorted((SAMPLES / "portraits").iterdir())[:photographs]])
    references = [path for path in sorted((SAMPLES / "styles").iterdir()) if path.suffix == ".jpg"]
    made = [stand_in(base, picture(base, references[i % len(references)])) for i in range(styles)]
    pairs = photographs * styles
    ways: dict[str, Callable[[], Tensor]] = {
        "the release's way": lambda: one_by_one(base, made, images, EXACT, shared=False),
        "one encoding for all styles": lambda: one_by_one(base, made, images, EXACT, shared=True),
        "and in batches": lambda: together(base, made, images, EXACT),
        "and the solver of --quality standard": lambda: together(base, made, images, STANDARD),
    }
    print(f"{photographs} photographs in {styles} styles, mini64, one thread; forwards of the solver {FORWARDS}")
    first: tuple[Tensor, float] | None = None
    for name, way in ways.items():
        start = time.process_time()
        pictures = way()
        seconds = time.process_time() - start
        first = first or (pictures, seconds)
        similar = structural_similarity(first[0], pictures).mean().item()
        ratio = first[1] / seconds
        print(f"{name}: {seconds / pairs:.3f} s a picture, {ratio:.1f} times cheaper, SSIM {similar:.4f}", flush=True)
    print(f"cheaper: {ratio:.1f} at SSIM {similar:.3f}")


def one_by_one(base: Base, styles: list[Style], images: Tensor, config: StylizeConfig, *, shared: bool) -> Tensor:
    """[styles · B, 3, S, S], a picture at a time."""
    stores: list[Codes] = [{} for _ in images]
    return torch.cat(
        [
            pictures_of(base, style, image[None], config, codes=stores[i] if shared else {})
            for style in styles
            for i, image in enumerate(images)
        ]
    )


def together(base: Base, styles: list[Style], images: Tensor, config: StylizeConfig) -> Tensor:
    """[styles · B, 3, S, S], all pictures of a style at once, and encoded once."""
    codes: Codes = {}
    return torch.cat([pictures_of(base, style, images, config, codes=codes) for style in styles])


def stand_in(base: Base, reference: Tensor) -> Style:
    """The base's weights, conditioned on a reference's code."""
    plain = no_style(base)
    header = plain.header.model_copy(update={"style_id": "stand-in"})
    z_style = base.diffae.encoder(reference[None].to(base.device))
    return replace(plain, header=header, z_style=z_style, style_levels=base.style_levels, strength=1.0)


def picture(base: Base, path: Path) -> Tensor:
    return to_tensor(fit(decode_image(path.read_bytes()), base.image_size)[0])


def measure_rerun(rows: int) -> None:
    """Print time and memory of planning where everything is decided."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest(Storage.open(folder))
        for start in range(0, rows, 1_000_000):
            write_rows(manifest, start, min(rows, start + 1_000_000))
        inputs = (Item(uri_of(i), str(i), "") for i in range(rows))
        plan, tally = Plan(manifest, (Variant("style", 1, params_hash="p"),), False), Tally()
        start_time = time.process_time()
        left = sum(1 for _ in plan(inputs, tally, unique=True))
        seconds = time.process_time() - start_time
    assert (left, tally.before["done"]) == (0, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"rerun with nothing to do, {rows:,} rows and inputs: {seconds:.1f} s, peak memory {peak:.2f} GB", flush=True)


def write_rows(manifest: Manifest, start: int, stop: int) -> None:
    count = stop - start
    columns = {
        "input_uri": pa.array(map(uri_of, range(start, stop)), pa.string()),
        "style_id": pa.repeat("style", count),
        "version": pa.repeat(1, count),
        "params_hash": pa.repeat("p", count),
        "status": pa.repeat("done", count),
    }
    table = pa.table({name: columns.get(name, pa.nulls(count, SCHEMA.field(name).type)) for name in SCHEMA.names})
    write_deltalake(manifest.uri, table.cast(SCHEMA), mode="append")


def uri_of(i: int) -> str:
    return f"s3://bucket/photographs/2024/{i % 1000:03d}/photograph-{i:09d}.jpg"


if __name__ == "__main__":
    main()
