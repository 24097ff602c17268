"""MLflow's side of benchmarks/catalog_scale.py: runs in an environment of its own, prints one line of JSON.

A style is a registered model with one version. What MLflow has no place for stands in tags of the version, which are
texts: metrics and the embedding (base64 of float32). Its filters cannot compare numbers in tags, nor dates of versions,
nor look for neighbours: the registry is asked for what it can filter, and the rest is done here.
"""

import base64
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time

import numpy as np
import pyarrow.dataset as ds

given = json.loads(sys.argv[1])
URI = f"sqlite:///{given['database']}"
os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = URI


def fill() -> int:
    """Rows go in by SQL, many at once: one by one it would take an hour. Returns the bytes on disk."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(URI)  # makes the tables
    base = sqlite3.connect(given["database"])
    columns = ["style_id", "version", "created_at", "base_name", "tags", "metrics", "checkpoint_uri"]
    for batch in ds.dataset(given["files"]).to_batches(columns=[*columns, "clip_embedding"]):
        embeddings = batch.column("clip_embedding")
        numbers, ends = embeddings.values.to_numpy(zero_copy_only=False), embeddings.offsets.to_numpy()
        models, versions, tags = [], [], []
        for i, row in enumerate(batch.select(columns).to_pylist()):
            name, made = row["style_id"], int(row["created_at"].timestamp() * 1000)
            models.append((name, made, made, ""))
            versions.append((name, row["version"], made, made, "", "None", row["checkpoint_uri"], "READY"))
            told = {"base_name": row["base_name"]} | {f"tag_{tag}": "1" for tag in row["tags"] or ()}
            told |= {f"metric_{metric}": repr(value) for metric, value in row["metrics"] or ()}
            if ends[i] < ends[i + 1]:
                told["embedding"] = base64.b64encode(numbers[ends[i] : ends[i + 1]].tobytes()).decode()
            tags += [(name, row["version"], key, value) for key, value in told.items()]
        with base:
            base.executemany(
                "insert into registered_models (name, creation_time, last_updated_time, description) values (?,?,?,?)",
                models,
            )
            base.executemany(
                "insert into model_versions (name, version, creation_time, last_updated_time, description,"
                " current_stage, source, status) values (?,?,?,?,?,?,?,?)",
                versions,
            )
            base.executemany("insert into model_version_tags (name, version, key, value) values (?,?,?,?)", tags)
    base.execute("analyze")
    base.close()
    return os.path.getsize(given["database"])


def lookup() -> list[str]:
    found = client.get_model_version(given["name"], "1")
    return [f"{found.name}@{found.version}"]


def filtered() -> list[str]:
    found = client.search_model_versions("tags.base_name = 'mini64' and tags.tag_oil = '1'", max_results=200_000)
    kept = [
        (float(one.tags["metric_structure"]), f"{one.name}@{one.version}")
        for one in found
        if float(one.tags["metric_structure"]) > 0.8 and one.creation_timestamp >= 1000 * given["since"]
    ]
    return [name for _, name in sorted(kept, reverse=True)[: given["shown"]]]


def nearest() -> list[str]:
    found = [one for one in client.search_model_versions(max_results=200_000) if "embedding" in one.tags]
    vectors = np.stack([np.frombuffer(base64.b64decode(one.tags["embedding"]), np.float32) for one in found])
    near = vectors @ np.load(given["query"])
    best = np.argsort(-near)[: given["nearest"]]
    return [f"{found[i].name}@{found[i].version}" for i in best]


def first_row() -> list[str]:
    script = (
        "from mlflow import MlflowClient\n"
        f"for one in MlflowClient().search_model_versions(max_results={given['shown']}):\n"
        "    print(one.name, one.version, one.tags, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline(), "nothing was printed"
        process.kill()
    return []


start = time.perf_counter()
size = fill()
filled = time.perf_counter() - start

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

client = MlflowClient()
ways = {
    "point lookup": lookup, "filtered list": filtered, "nearest embeddings": nearest,
    "first row on the screen": first_row,
}  # fmt: skip
seconds, answers = {}, {}
for question, way in ways.items():
    times = []
    for _ in range(1 + given["repeats"]):
        start = time.perf_counter()
        answers[question] = way()
        times.append(time.perf_counter() - start)
        if times[0] > given["patience"]:
            break
    seconds[question] = statistics.median(times[1:] or times)  # what is loaded once is not counted
told = {"version": mlflow.__version__, "filled": filled, "bytes": size, "seconds": seconds, "answers": answers}
print(json.dumps(told))
