"""Memory of an evaluation over many pairs, killed halfway and run again: ``python -m benchmarks.evaluate_memory``.

A base of random weights and the methods that need no network of it, so that what grows with the number of pairs shows.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from deltalake import DeltaTable
from PIL import Image
from pydantic import Field
from rich.console import Console

from cluster.commandline.cli import JobFlags, parse_flags
from cluster.storage import Storage
from jobs.evaluating.state import PairsTable
from tests.support.stylize_case import Case

ROOT = Path(__file__).parents[1]
console = Console(highlight=False, soft_wrap=True)


class MemoryFlags(JobFlags):
    """What is measured, and where."""

    photographs: int = Field(5000, gt=1, description="Photographs; pairs are twice as many, rows four times.")
    folder: Path = Field(Path("runs/evaluate-memory"), description="Where everything goes.")
    kill_at: float = Field(0.5, description="Part of the rows after which the job is killed.")


def main() -> None:
    flags = parse_flags(MemoryFlags)
    root = Storage.open(flags.folder)
    case = Case.make(root, flags.folder, styles=0)
    rng = np.random.default_rng(0)
    for i in range(2):
        _write(flags.folder / "references" / f"{i}.png", rng)
        case.register(f"style-{i}", seed=i, reference=root.child_uri(f"references/{i}.png"))
    for i in range(flags.photographs):
        _write(flags.folder / "in" / f"{i:06d}.png", rng)
    command = [
        sys.executable, str(ROOT / "jobs/evaluate.py"), "--storage", root.uri, "--content", root.child_uri("in"),
        "--output", root.child_uri("out"), "--styles", "all", "--base", str(case.base), "--methods", "photograph",
        "--workers", "1", "--batch-size", "16", "--leave-catalog",
    ]  # fmt: skip
    rows = 4 * flags.photographs
    for most in (int(rows * flags.kill_at), None):
        code = _watched(command, root.child("out"), most)
        console.print(f"exit code {code}")
    table = DeltaTable(root.child("out").delta_uri("evaluation")).to_pyarrow_table(
        columns=["input_uri", "style_id", "method"]
    )
    pairs = len(set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)))
    counted = sum(m.count for m in PairsTable(root.child("out")).state.moments.values())
    console.print(f"{table.num_rows} rows, {pairs} different, {counted} pictures in the moments, of {rows}")


def _write(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def _watched(command: list[str], output: Storage, most: int | None) -> int:
    """Run it, a line of resident memory every 5 s; killed with all that it started once ``most`` rows are there."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    started = time.monotonic()
    while process.poll() is None:
        time.sleep(5)
        rows = _rows(output)
        driver, workers = _memory(process.pid)
        console.print(json.dumps({"s": round(time.monotonic() - started), "rows": rows, "driver": driver} | workers))
        if most is not None and rows >= most:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()
    return process.returncode


def _rows(output: Storage) -> int:
    try:
        return DeltaTable(output.delta_uri("evaluation")).count()
    except Exception:  # not there yet
        return 0


def _memory(pid: int) -> tuple[int, dict[str, int]]:
    """Resident MB of the driver, and the largest of each kind of Ray process."""
    found: dict[str, int] = {}
    for child in psutil.Process(pid).children(recursive=True):
        try:
            name = " ".join(child.cmdline())[:40]
            if name.startswith("ray::") and "IDLE" not in name:
                found[name] = max(found.get(name, 0), child.memory_info().rss >> 20)
        except psutil.Error:
            continue
    return psutil.Process(pid).memory_info().rss >> 20, found


if __name__ == "__main__":
    main()
