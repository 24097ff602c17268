"""``python -m osasis.verify DIR``: compare this implementation with numbers of the official release.

Prints the largest errors of every file. Exit codes: 0 all within tolerance, 1 some past it, 2 bad usage, or a folder
that cannot be read or holds what cannot be computed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from osasis.precision import Precision, choose_device, exact_float32, weights_dtype
from osasis.verify.compare import verify
from osasis.verify.folder import FolderError, GoldenFolder

TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "bf16": 0.25, "float64": 1e-4}
"""Largest relative norm of a difference. The release's numbers are float32: two builds of it differ by 7e-6."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m osasis.verify", description=__doc__.partition("\n\n")[2])
    parser.add_argument("folder", type=Path, help="a folder in the golden format: meta.json and safetensors")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 …")
    parser.add_argument("--dtype", choices=get_args(Precision), default="float32", help="precision of the networks")
    parser.add_argument("--tolerance", type=float, help="largest relative error; default: 1e-4, for bf16 0.25")
    flags = parser.parse_args(argv)
    precision: Precision = flags.dtype
    tolerance = TOLERANCES[precision] if flags.tolerance is None else flags.tolerance
    exact_float32()
    try:
        folder = GoldenFolder(flags.folder, choose_device(flags.device), weights_dtype(precision))
        report = verify(folder, precision, tolerance)
    except (FolderError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(report.table())
    failures = report.failures()
    for failure in failures[:20]:
        print(f"past tolerance: {failure.file}: {failure.name}: {failure.relative:.1e}", file=sys.stderr)
    worst = max((d.relative for d in report.differences), default=0.0)
    verdict = "all within" if report.passed else f"{len(failures)} past"
    print(
        f"{len(report.differences)} values on {folder.device}, {precision}: {verdict} {tolerance:g} (worst {worst:.1e})"
    )
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
