"""What stylizing costs: ``python -m benchmarks.stylize [--quick] [--part NAME …]``.

- ``cheaper``: processor time for each (photograph, style) against the way of the release; each lever's share, and SSIM.
- ``fidelity``: SSIM and PSNR to the exact path, by forwards and solver.
- ``manifest``: time and memory of a rerun with nothing to do, of ``--retry-failed`` and of commits, by rows.
- ``pipeline``: a worker's whole path beside the bare loop over the same batches.
- ``scheduler``: many styles and pictures on Ray, computing replaced by a pause: loads, and idle devices.
- ``nodes``: the driver of a run on 64 nodes with stages of fixed time, simulated: what is saturated first.

Times are of the processor where not told otherwise, so that what else the machine does counts little. Results are
printed as they come. The last line is ``cheaper: N.N at SSIM 0.NNN``.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

PARTS = ("manifest", "nodes", "scheduler", "pipeline", "fidelity", "cheaper")
say = partial(print, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pictures and rows: within ten minutes on two cores")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--styles", type=int, default=8)
    parser.add_argument("--photographs", type=int, help="in a batch; default: 8, or 2 with --quick; on a GPU 32")
    parser.add_argument("--device", help="for cheaper and fidelity; default: the first GPU, or else the CPU")
    parser.add_argument(
        "--sizes",
        choices=("mini64", "ffhq256"),
        default="mini64",
        help="of the networks for cheaper: the bundled base, or the paper's sizes with random weights, for a GPU",
    )
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile, which compiles for minutes")
    parser.add_argument("--style", type=Path, help="a style's checkpoint on mini64; default: one is trained first")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of the manifest; default: 10^5 to 10^7, or to 10^6")
    flags = parser.parse_args()
    quick: bool = flags.quick
    if "manifest" in flags.part:
        from benchmarks.stylize_parts import manifest

        manifest.measure(flags.rows or (10**5, 10**6) + (() if quick else (10**7,)))
    if "nodes" in flags.part:
        from benchmarks.stylize_parts import nodes

        nodes.measure(chunks=400 if quick else 2000, say=say)
    if "scheduler" in flags.part:
        from benchmarks.stylize_parts import scheduler

        scheduler.measure(100, 320 if quick else 2000, say)
    if "pipeline" in flags.part:
        from benchmarks.stylize_parts import pipeline

        pipeline.measure(24, ("standard",) if quick else ("exact", "standard"), say)
    if {"fidelity", "cheaper"} & set(flags.part):
        pictures(flags)


def pictures(flags: argparse.Namespace) -> None:
    """The parts that compute pictures, which need neither Ray nor a storage."""
    from benchmarks.stylize_parts import cheaper, fidelity
    from benchmarks.stylize_parts.studio import studio
    from osasis.precision import choose_device

    device = choose_device(flags.device)
    count = 32 if device.type == "cuda" else 2 if flags.quick else 8
    with tempfile.TemporaryDirectory() as folder:
        made = studio(flags.photographs or count, Path(folder), flags.style, device, flags.sizes)
        if "fidelity" in flags.part and made.style:
            fidelity.measure(made, fidelity.COUNTS[1:6] if flags.quick else fidelity.COUNTS, say)
        if "cheaper" in flags.part:
            ratio, similar = cheaper.measure(made, flags.styles, compiled=flags.compile, say=say)
            say(f"cheaper: {ratio:.1f} at SSIM {similar:.3f}")


if __name__ == "__main__":
    main()
