"""The style catalog at size: ``python -m benchmarks.catalog_scale --styles 100000``.

The same questions put to the catalog, to pyarrow over the very same Parquet files (which knows neither aliases nor
deletions), and to MLflow's model registry on SQLite; then registrations per second of one and of many writers on a real
S3 server. All in one run on one machine; ratios above 1 mean that the catalog is quicker. Answers are compared.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import Field
from rich.console import Console
from rich.table import Table

from benchmarks.catalog_data import ENCODER, fill, parquet_files, query_vector, since, style_id
from benchmarks.catalog_writers import measure_writers
from catalog.filters import Condition
from catalog.search import search
from catalog.store import StyleCatalog
from catalog.view import Question
from cluster.commandline.cli import JobFlags, parse_flags, run_job
from cluster.storage import Storage

ROOT = Path(__file__).resolve().parents[1]
WHERE = ("base_name=mini64", "tags=oil", "structure>0.8", "created_at>=2026-03-01")
SHOWN = 20
NEAREST = 10
PATIENCE_S = 10.0
"""What takes longer at the first time is not asked again."""
QUESTIONS = ("point lookup", "filtered list", "nearest embeddings", "first row on the screen")
console = Console(highlight=False, width=120)

Answer = list[str]


class CatalogBenchmarkFlags(JobFlags):
    """Measures the catalog's questions and commits against plain pyarrow and against MLflow."""

    styles: int = Field(100_000, ge=0, description="Styles in the catalog, one version each; 0 leaves the questions.")
    dim: int = Field(512, gt=0, description="Width of their embeddings; 512 is CLIP ViT-B/32's.")
    repeats: int = Field(5, gt=0, description="Times that each question is asked; medians are shown.")
    mlflow: str | None = Field(
        None,
        description="Folder of an environment with mlflow (made by pip if absent); without it that part is skipped.",
    )
    writers: int = Field(16, ge=0, description="Processes that register at the same time; 0 leaves that part.")
    registrations: int = Field(20, gt=0, description="Registrations of each writer.")


class _Encoded:
    """Stands for a CLIP: what it costs to encode the words is not the catalog's."""

    clip_encoder, base_fingerprint = ENCODER, "f" * 16

    def __init__(self, vector: list[float]) -> None:
        self._vector = vector

    def encode_text(self, text: str) -> list[float]:
        return self._vector

    def encode_image(self, data: bytes) -> list[float]:
        return self._vector


@dataclass(frozen=True)
class Measured:
    """Median seconds and what was answered, for each question that was asked."""

    seconds: dict[str, float]
    answers: dict[str, Answer]


def main() -> None:
    flags = parse_flags(CatalogBenchmarkFlags)
    folder = Path(tempfile.mkdtemp(prefix="catalog-benchmark-"))
    try:
        if flags.styles:
            _questions(flags, folder)
        if flags.writers:
            console.print(measure_writers(folder, flags.writers, flags.registrations))
    finally:
        shutil.rmtree(folder)


def _questions(flags: CatalogBenchmarkFlags, folder: Path) -> None:
    storage = Storage.open(folder / "storage")
    start = time.monotonic()
    fill(storage, flags.styles, flags.dim)
    files = parquet_files(storage)
    size = sum(Path(file).stat().st_size for file in files)
    console.print(
        f"{flags.styles:,} styles, {len(files)} Parquet files, {size / 1e6:.0f} MB, "
        f"made in {time.monotonic() - start:.0f} s"
    )
    measured = {
        "catalog": _measure(_ours(storage, flags), flags.repeats),
        "pyarrow": _measure(_plain(files, flags), flags.repeats),
    }
    if flags.mlflow:
        measured["mlflow"] = _mlflow(flags, folder, files)
    for name, other in measured.items():
        for question, answer in other.answers.items():
            assert answer == measured["catalog"].answers[question], f"{name} answers {question!r} differently"
    console.print(_table(measured, _floors(files)))


def _measure(ways: dict[str, Callable[[], Answer]], repeats: int) -> Measured:
    seconds: dict[str, float] = {}
    answers: dict[str, Answer] = {}
    for question, way in ways.items():
        times: list[float] = []
        for _ in range(1 + repeats):
            start = time.perf_counter()
            answers[question] = way()
            times.append(time.perf_counter() - start)
            if times[0] > PATIENCE_S:
                break
        seconds[question] = statistics.median(times[1:] or times)  # what is loaded once is not counted
    return Measured(seconds, answers)


def _ours(storage: Storage, flags: CatalogBenchmarkFlags) -> dict[str, Callable[[], Answer]]:
    """Each question opens the catalog anew, so every answer is of the newest commit."""
    name = f"{style_id(flags.styles // 2)}@1"
    vector = query_vector(flags.dim).tolist()
    where = [Condition.parse(text) for text in WHERE]

    def lookup() -> Answer:
        return [str(StyleCatalog.open(storage).show(name))]

    def filtered() -> Answer:
        found = StyleCatalog.open(storage).list(where=where, sort=["-structure"], limit=SHOWN)
        return [str(version) for version in found]

    def nearest() -> Answer:
        question = Question(("style_id", "version"), limit=NEAREST)
        found = search(
            StyleCatalog.open(storage).view(), question, text="encoded already", load=lambda _: _Encoded(vector)
        )
        return [f"{row['style_id']}@{row['version']}" for row in found.rows]

    command = [sys.executable, "-m", "catalog", "list", "--storage", storage.uri, "--limit", str(SHOWN)]
    return dict(zip(QUESTIONS, (lookup, filtered, nearest, lambda: _first_line(command)), strict=True))


def _plain(files: list[str], flags: CatalogBenchmarkFlags) -> dict[str, Callable[[], Answer]]:
    wanted = style_id(flags.styles // 2)
    vector = query_vector(flags.dim)

    def names(table: pa.Table) -> Answer:
        return [f"{row['style_id']}@{row['version']}" for row in table.select(["style_id", "version"]).to_pylist()]

    def lookup() -> Answer:
        chosen = (pc.field("style_id") == wanted) & (pc.field("version") == 1)
        (row,) = ds.dataset(files).to_table(filter=chosen).to_pylist()
        return [f"{row['style_id']}@{row['version']}"]

    def filtered() -> Answer:
        columns = ["style_id", "version", "metrics", "tags"]
        chosen = (pc.field("base_name") == "mini64") & (pc.field("created_at") >= since(3))
        table = ds.dataset(files).to_table(columns=columns, filter=chosen)
        table = table.append_column("structure", pc.map_lookup(table["metrics"], "structure", "first"))
        table = table.filter(pc.greater(table["structure"], 0.8))
        oil = [tags is not None and "oil" in tags for tags in table["tags"].to_pylist()]
        return names(table.filter(pa.array(oil)).sort_by([("structure", "descending")]).slice(0, SHOWN))

    def nearest() -> Answer:
        table = ds.dataset(files).to_table(columns=["style_id", "version", "clip_embedding"])
        table = table.filter(pc.is_valid(table["clip_embedding"]))
        flat = table["clip_embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        near = flat.reshape(len(table), flags.dim) @ vector
        best = np.argpartition(-near, NEAREST)[:NEAREST]
        return names(table.take(best[np.argsort(-near[best])]))

    script = (
        "import sys, pyarrow.dataset as ds\n"
        "head = ds.dataset(sys.argv[1:]).head(20, columns=['style_id', 'version', 'base_name', 'tags'])\n"
        "print(head.to_pylist()[0], flush=True)"
    )
    command = [sys.executable, "-c", script, *files]
    return dict(zip(QUESTIONS, (lookup, filtered, nearest, lambda: _first_line(command)), strict=True))


def _first_line(command: list[str]) -> Answer:
    """Starts a program and returns with the first line of its output."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline(), "nothing was printed"
        process.kill()
    return []


def _mlflow(flags: CatalogBenchmarkFlags, folder: Path, files: list[str]) -> Measured:
    """The same questions in MLflow's own environment: ``benchmarks/catalog_mlflow.py``."""
    query = folder / "query.npy"
    np.save(query, query_vector(flags.dim))
    given: dict[str, Any] = {
        "files": files, "database": str(folder / "mlflow.db"), "query": str(query), "repeats": flags.repeats,
        "name": style_id(flags.styles // 2), "shown": SHOWN, "nearest": NEAREST, "since": since(3).timestamp(),
        "patience": PATIENCE_S,
    }  # fmt: skip
    python = Path(str(flags.mlflow)) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(flags.mlflow)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "mlflow>=3,<4"], check=True)
    command = [python, str(ROOT / "benchmarks" / "catalog_mlflow.py"), json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    console.print(f"MLflow {told['version']}: {told['filled']:.0f} s to fill its SQLite, {told['bytes'] / 1e6:.0f} MB")
    return Measured(told["seconds"], told["answers"])


def _floors(files: list[str]) -> dict[str, int]:
    """Bytes of the columns that each question must read, as compressed in the files, of all rows."""
    needed = {
        "point lookup": ("style_id", "version"),
        "filtered list": ("style_id", "version", "base_name", "created_at", "tags", "metrics"),
        "nearest embeddings": ("style_id", "version", "clip_encoder", "clip_embedding"),
        "first row on the screen": ("style_id", "version", "base_name", "tags"),
    }
    sizes: dict[str, int] = {}
    for file in files:
        metadata = pq.read_metadata(file)
        for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
            for column in (group.column(i) for i in range(group.num_columns)):
                name = column.path_in_schema.partition(".")[0]
                sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    return {question: sum(sizes.get(name, 0) for name in names) for question, names in needed.items()}


def _table(measured: dict[str, Measured], floors: dict[str, int]) -> Table:
    others = [name for name in measured if name != "catalog"]
    columns = ["catalog", *(part for name in others for part in (name, f"{name} / catalog"))]
    table = Table("question", "columns it needs", *columns)
    for question in QUESTIONS:
        ours = measured["catalog"].seconds[question]
        cells = [_milliseconds(ours)]
        for name in others:
            theirs = measured[name].seconds[question]
            cells += [_milliseconds(theirs), f"{theirs / ours:.1f}"]
        table.add_row(question, f"{floors[question] / 1e6:.1f} MB", *cells)
    return table


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


if __name__ == "__main__":
    run_job(main)
