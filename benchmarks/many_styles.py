"""Hundreds of styles on nodes that come and go: ``python -m benchmarks.many_styles --styles 300``.

A cluster of three nodes and a head on this machine, a tiny base, the real job. On the way a node is killed, one joins,
one is told that it will go and goes, and the job itself is killed and given again. Says whether every style was
registered once, what memory the head's processes take as styles end, and which files are left over.

``--start-up`` measures instead what a style waits for in a worker that has trained others, and prints it.
"""

import argparse
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from PIL import Image

from benchmarks.faults_parts.job import ROOT, Job
from catalog.store import StyleCatalog
from cluster.commandline.config_file import check, read_yaml
from cluster.storage import Storage
from jobs.finetuning.plan import make_plan
from jobs.finetuning.styles_file import StylesFile
from jobs.shared.bases import open_base
from tests.support.ray_nodes import Nodes, running_nodes
from tests.support.tiny import make_tiny_base

_SAMPLE_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--styles", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="kept, and gone on with; default: a temporary one")
    parser.add_argument("--start-up", action="store_true")
    arguments = parser.parse_args()
    os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.start_up:
            return start_up(make_styles(folder, 6, iterations=1))
        file = make_styles(folder, arguments.styles, arguments.iterations)
        with running_nodes(3) as nodes:
            run(file, Storage.open(folder / "out"), arguments.styles, nodes)


def make_styles(folder: Path, count: int, iterations: int) -> Path:
    """A styles file of random pictures; every other style is an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    base = make_tiny_base(folder / "base")
    styles = []
    for i in range(count):
        image = folder / f"{i:04d}.png"
        pixels = np.random.default_rng(i).integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
        train = {"adapter_rank": 4, "spn_width": 16} if i % 2 else {}
        styles.append({"id": f"style-{i:04d}", "image": str(image), "train": train})
    given = {"base": str(base), "storage": str(folder / "out"), "train": {"iterations": iterations}, "styles": styles}
    (folder / "styles.yaml").write_text(yaml.safe_dump(given))
    return folder / "styles.yaml"


def start_up(file: Path) -> None:
    """Seconds from taking a style to the end of its only iteration, and what that took; the first encodes contents."""
    from jobs.finetuning.contents import Contents
    from jobs.finetuning.style_queue import Task  # with Ray, which reads the token as it is imported
    from jobs.finetuning.worker import Reports, WorkerSettings, train_style

    torch.set_num_threads(1)
    read = read_yaml(file)
    plan = make_plan(check(read, StylesFile), read)
    contents = Contents(open_base(plan.base_location, "cpu"))
    settings = WorkerSettings(
        plan.base_location, plan.storage, "benchmark", checkpoint_every_s=60, threads=1, wait=False
    )
    told: list[float] = []
    remote = SimpleNamespace(remote=lambda *_: told.append(time.monotonic()))
    for style in plan.styles:
        told.clear()
        started, reports = time.monotonic(), Reports(SimpleNamespace(used=remote, progress=remote), "worker")
        train_style(Task(style, again=False), contents, settings, reports)
        took = style.folder.read_result().train_seconds
        print(f"{style.style_id}: {told[0] - started:.2f} s to the end of the first iteration, which took {took} s")


def run(file: Path, storage: Storage, count: int, nodes: Nodes) -> None:
    started, before = time.monotonic(), ended(storage)
    first, second, *_ = nodes.workers

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s, {ended(storage):3} styles: {text}", flush=True)

    command = ["jobs/train_styles.py", "--config", str(file), "--checkpoint-seconds", "1"]
    env = os.environ | {"RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT)}
    job = Job("train", command, env, file.with_name("job.log"))
    watch = HeadMemory(nodes, job, storage)
    events: list[tuple[float, str, Callable[[], object]]] = [
        (0.2, "a node is killed", lambda: nodes.kill(first)),
        (0.35, "a node joins", nodes.add),
        (0.5, "a node is told that it will go in 60 s", lambda: drain(second, nodes.address)),
        (0.55, "another joins", nodes.add),
        (0.7, "the job is killed, and given again", job.kill_and_restart),
    ]
    while job.runs():
        if events and ended(storage) >= events[0][0] * count:
            _, text, happen = events.pop(0)
            say(text)
            happen()
        watch.sample()
        time.sleep(0.5)
    say(f"the job has ended with {job.code}, {len(events)} events left")
    watch.report()
    versions = Counter(row.style_id for row in StyleCatalog.open(storage).list())
    print(f"{len(versions)} of {count} styles registered, {sum(versions.values()) - len(versions)} of them twice")
    left = [*storage.list_files("train"), *storage.list_files("leases")]
    print(f"{len(left)} files of states and leases left over {left[:5]}")
    rate = (count - before) / (time.monotonic() - started) * 60
    print(f"{rate:.1f} styles a minute, start of the job and all events included")
    print(job.last_words(12))


def ended(storage: Storage) -> int:
    return len([*Path(storage.uri).glob("checkpoints/*/*/result.json")])


class HeadMemory:
    """Proportional set size of driver, GCS and the head's raylet with its workers, as styles end."""

    def __init__(self, nodes: Nodes, job: Job, storage: Storage) -> None:
        infos = [info for kind in ("gcs_server", "raylet") for info in nodes.cluster.head_node.all_processes[kind]]
        self._pids = [info.process.pid for info in infos]
        self._job = job
        self._storage = storage
        self._samples: list[tuple[int, float]] = []
        self._last = 0.0

    def sample(self) -> None:
        if time.monotonic() - self._last < _SAMPLE_S:
            return
        self._last = time.monotonic()
        self._samples.append((ended(self._storage), sum(map(self._tree, [*self._pids, self._job.process.pid])) / 2**20))

    def _tree(self, pid: int) -> float:
        total = 0.0
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            for member in [process, *process.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += member.memory_full_info().pss
        return total

    def report(self) -> None:
        most = max(done for done, _ in self._samples)
        for i in range(10):
            there = [mb for done, mb in self._samples if i * most / 10 < done <= (i + 1) * most / 10]
            if there:
                print(f"head, {i * 10:2}-{i * 10 + 10} % of the styles: {sum(there) / len(there):.0f} MB on average")


def drain(node: Any, gcs_address: str) -> None:
    """As a cloud's notice reaches Ray."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + 60) * 1000)
    accepted, message = GcsClient(address=gcs_address).drain_node(node.node_id, reason, "spot", deadline)
    assert accepted, message


if __name__ == "__main__":
    main()
