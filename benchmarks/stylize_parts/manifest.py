"""The manifest by rows: a rerun with nothing to do, ``--retry-failed``'s end, and commits.

Each number of rows is written by one process and measured by another, which imports all that the job's driver does.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median

PREFIX = "s3://bucket/photographs/2024"
COMMITS = 20


def measure(counts: Sequence[int]) -> None:
    """Print a table's rows for each of these numbers of rows."""
    print("| rows | planning a rerun, s | rate, inputs/s | memory before, peak, GB | retried rows settle, s, peak GB "
          "| commit of 2,000 rows, median and longest s | compaction, s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|", flush=True)
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("write", "measure"):
                command = [sys.executable, "-m", "benchmarks.stylize_parts.manifest", step, folder, str(count)]
                subprocess.run(command, check=True)


def write(folder: str, count: int) -> None:
    """As many rows in files of a million, as compaction leaves them; one in a hundred failed."""
    import duckdb
    import pyarrow as pa

    from catalog.manifest import SCHEMA, Manifest
    from cluster.storage import Storage

    manifest = Manifest(Storage.open(folder))
    for start in range(0, count, 1_000_000):
        made = duckdb.sql(
            f"""
            SELECT format('{PREFIX}/{{:03d}}/photograph-{{:09d}}.jpg', i % 1000, i) AS input_uri,
                sha256(i::VARCHAR) AS input_sha256, 'style' AS style_id, 1 AS "version", 'p' AS params_hash,
                CASE WHEN i % 100 = 0 THEN 'failed' ELSE 'done' END AS "status",
                format('s3://bucket/out/images/style@1/{{:09d}}.png', i) AS output_uri,
                sha256('o' || i) AS output_sha256, 1024 AS "width", 768 AS "height", 0.02 AS "seconds",
                'run-1' AS run_id, 0 AS "seed", i::VARCHAR AS "key"
            FROM range({start}, {min(count, start + 1_000_000)}) rows(i)
            """
        ).to_arrow_table()
        columns = {f.name: made[f.name] if f.name in made.column_names else pa.nulls(len(made), f.type) for f in SCHEMA}
        manifest.append_table(pa.table(columns).cast(SCHEMA))


def measure_one(folder: str, count: int) -> None:
    """Print the row of a table."""
    import jobs.stylize  # noqa: F401  (what the driver holds in memory)
    from catalog.manifest import Manifest
    from cluster.storage import Storage
    from jobs.streaming.inputs.item import Item
    from jobs.streaming.planning import Plan, Tally
    from jobs.streaming.variants import Variant

    manifest, variant = Manifest(Storage.open(folder)), Variant("style", 1, params_hash="p")
    items = (Item(f"{PREFIX}/{i % 1000:03d}/photograph-{i:09d}.jpg", "", "") for i in range(count))
    listing = time.process_time()
    for _ in (Item(f"{PREFIX}/{i % 1000:03d}/photograph-{i:09d}.jpg", "", "") for i in range(10**5)):
        pass
    listing = (time.process_time() - listing) * count / 10**5  # to make inputs up is no part of it
    before, start = peak(), time.process_time()
    manifest.other_parameters([(variant.pair, None)])
    tally = Tally()
    left = sum(1 for _ in Plan(manifest, (variant,), False)(items, tally, unique=True))
    planning = time.process_time() - start - listing
    assert (left, tally.before.total()) == (0, count)
    print(f"| {count:,} | {planning:.1f} | {count / planning:,.0f} | {before:.2f}, {peak():.2f} ", end="", flush=True)
    commits = [timed(lambda n=n: manifest.append(retried(n))) for n in range(COMMITS)]
    settling = timed(lambda: manifest.settle(["p"]))
    print(f"| {settling:.1f}, {peak():.2f} | {median(commits):.2f}, {max(commits):.2f} ", end="")
    print(f"| {timed(manifest.compact):.1f} |", flush=True)


def retried(commit: int) -> list[dict[str, object]]:
    """2,000 rows of a commit that takes up what had failed."""
    numbers = range(commit * 200_000, (commit + 1) * 200_000, 100)
    return [
        {
            "input_uri": f"{PREFIX}/{i % 1000:03d}/photograph-{i:09d}.jpg",
            "style_id": "style", "version": 1, "params_hash": "p", "status": "done", "run_id": "run-2",
        }
        for i in numbers
    ]  # fmt: skip


def timed(do: object) -> float:
    """Seconds of the processor."""
    start = time.process_time()
    do()  # type: ignore[operator]
    return time.process_time() - start


def peak() -> float:
    """GB resident at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    {"write": write, "measure": measure_one}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
