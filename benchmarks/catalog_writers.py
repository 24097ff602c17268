"""Registrations per second of one writer and of many at once, on a real S3 server (SeaweedFS, on this machine)."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

from rich.table import Table

from catalog.schema import NewStyle
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.s3_server import running_s3

ROOT = Path(__file__).resolve().parents[1]


def measure_writers(folder: Path, writers: int, registrations: int) -> Table:
    """A table of both rates. Checkpoints are in place beforehand; each writer is a process with a style of its own."""
    table = Table("writers", "registrations", "seconds", "per second", "of one writer's", title="Registering on S3")
    with running_s3(folder / "s3") as server:
        alone = 0.0
        for count in (1, writers):
            storage = Storage.open(server.bucket_uri(f"writers-{count}"))
            seconds = _timed(storage, count, registrations)
            rows = len(StyleCatalog.open(storage).list())
            assert rows == count * registrations, f"{rows} rows of {count * registrations} registrations"
            rate = rows / seconds
            alone = alone or rate
            table.add_row(str(count), str(rows), f"{seconds:.1f}", f"{rate:.1f}", f"{rate / alone:.2f}")
    return table


def _timed(storage: Storage, writers: int, registrations: int) -> float:
    """Seconds from the word to go until the last writer is done."""
    command = [sys.executable, "-m", "benchmarks.catalog_writers", storage.uri, str(registrations)]
    processes = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(writers)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    seconds = time.monotonic() - start
    failed = sum(process.returncode != 0 for process in processes)
    assert not failed, f"{failed} of {writers} writers failed"
    return seconds


def _write(storage: Storage, registrations: int, writer: int) -> None:
    catalog = StyleCatalog.open(storage)
    styles = [_style(storage, f"style-{writer}", f"{writer} {i}") for i in range(registrations)]
    print("ready", flush=True)
    sys.stdin.readline()
    for style in styles:
        catalog.register(style)


def _style(storage: Storage, style_id: str, content: str) -> NewStyle:
    data = content.encode()
    name = f"checkpoints/{hashlib.sha256(data).hexdigest()}.safetensors"
    storage.write_bytes(name, data)
    return NewStyle(
        style_id=style_id, base_name="mini64", base_fingerprint="f" * 16, checkpoint_uri=storage.child_uri(name),
        checkpoint_sha256=hashlib.sha256(data).hexdigest(), checkpoint_bytes=len(data), preset="official",
        train_config={}, reference_uri="none", reference_sha256="0" * 64, run_id="benchmark", train_seconds=0,
        device="cpu",
    )  # fmt: skip


if __name__ == "__main__":
    _write(Storage.open(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
