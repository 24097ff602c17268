"""What the two jobs are given to do, round after round, and whether all of it was done, once and whole."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import yaml
from PIL import Image

from catalog.manifest import Manifest
from catalog.pictures import read_picture
from catalog.store import StyleCatalog
from catalog.verify import Finding, verify
from cluster.storage import Storage
from osasis.image import decode_image
from tests.support.hostile import encoded, picture
from tests.support.s3_server import S3
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE

_FIXED = 2
"""Styles to stylize with, in the catalog from the start."""
_NONE = "none"
"""Their reference."""
_PICTURES, _STYLES, _ITERATIONS = 300, 6, 12
"""Inputs, trainings, and updates of each, in a round."""
_PARTS_OF_WORKER = {"stylize": "0.25", "train": "0.5"}
"""CPUs, so that the workers of both jobs fit on one node of two."""


@dataclass
class Work:
    """Below one prefix of a bucket: ``in``, ``out``, the catalog with its checkpoints, and references."""

    server: S3
    root: Storage
    inputs: int = 0
    trained: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, server: S3, folder: Path) -> "Work":
        root = Storage.open(server.bucket_uri("faults"))
        case = Case.make(root, folder, styles=0)
        for i in range(_FIXED):
            case.register(f"style-{i}", seed=i, reference=_NONE)
        for file in (folder / "base").rglob("*"):
            if file.is_file():
                root.upload_file(file, f"base/{file.relative_to(folder / 'base')}")
        return cls(server, root)

    def next_stylize(self) -> list[str]:
        """The command, the same in every round; there are more inputs."""
        for i in range(self.inputs, self.inputs + _PICTURES):
            self._put(f"in/{i:05d}.png", encoded(picture(24, 20, seed=i), "PNG"))
        self.inputs += _PICTURES
        flags = {
            "storage": self.root.uri, "base": self.root.child_uri("base"), "input": self.root.child_uri("in"),
            "output": self.root.child_uri("out"), "styles": ",".join(f"style-{i}" for i in range(_FIXED)),
            "encode_steps": 10, "decode_steps": 5, "batch_size": 4, "workers": 2,
            "cpus_per_worker": _PARTS_OF_WORKER["stylize"],
        }  # fmt: skip
        given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        return ["jobs/stylize.py", *given, "--retry-failed"]

    def next_train(self) -> list[str]:
        """The command of further styles; every other one is an adapter."""
        styles = []
        for i in range(len(self.trained), len(self.trained) + _STYLES):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 30, 3), dtype=np.uint8)
            self._put(f"references/{i:04d}.png", encoded(Image.fromarray(pixels), "PNG"))
            train = {"adapter_rank": 4, "spn_width": 16} if i % 2 else {}
            uri = self.root.child_uri(f"references/{i:04d}.png")
            styles.append({"id": f"trained-{i:04d}", "image": uri, "train": train})
        self.trained += [str(style["id"]) for style in styles]
        given = {"base": self.root.child_uri("base"), "storage": self.root.uri, "styles": styles}
        self._put("styles.yaml", yaml.safe_dump(given | {"train": {"iterations": _ITERATIONS}}).encode())
        config = self.root.child_uri("styles.yaml")
        part = _PARTS_OF_WORKER["train"]
        return [
            "jobs/train_styles.py", f"--config={config}", "--checkpoint-seconds=1", "--workers=2",
            f"--cpus-per-worker={part}",
        ]  # fmt: skip

    def _put(self, name: str, data: bytes) -> None:
        """Past the proxy: it is no work of a job's."""
        client = boto3.client("s3", endpoint_url=self.server.endpoint)
        client.put_object(Bucket=self.server.bucket, Key=f"{self._prefix}{name}", Body=data)

    @property
    def _prefix(self) -> str:
        return self.root.uri.removeprefix(f"s3://{self.server.bucket}/") + "/"


@dataclass
class Verdict:
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Temporary files, states and leases."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.left)


def judge(work: Work) -> Verdict:
    """Everything that was asked for against what is there."""
    verdict = Verdict()
    _judge_pictures(work, verdict)
    _judge_styles(work, verdict)
    client = boto3.client("s3", endpoint_url=work.server.endpoint)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=work.server.bucket, Prefix=work._prefix)
    names = [item["Key"].removeprefix(work._prefix) for page in pages for item in page.get("Contents", ())]
    verdict.left = [n for n in names if n.startswith(("train/", "leases/", "out/leases/")) or ".osasis-tmp-" in n]
    return verdict


def _judge_pictures(work: Work, verdict: Verdict) -> None:
    output = work.root.child("out")
    rows = Manifest(output).rows()
    expected = {
        (work.root.child_uri(f"in/{i:05d}.png"), f"style-{s}") for i in range(work.inputs) for s in range(_FIXED)
    }
    by_pair: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in expected}
    for row in rows:
        by_pair.setdefault((row["input_uri"], row["style_id"]), []).append(row)
    for pair, found in by_pair.items():
        name = " in ".join(pair)
        if len(found) > 1 or pair not in expected:
            verdict.doubled.append(f"{name}: {len(found)} rows")
        if not any(_is_whole(row) for row in found):
            verdict.lost.append(f"{name}: {[row['error'] or 'picture is not as its row says' for row in found]}")
    files = {output.child_uri(f"images/{name}") for name in output.list_files("images")}
    verdict.doubled += sorted(files - {row["output_uri"] for row in rows})
    verdict.counts["pairs"], verdict.counts["rows"] = len(expected), len(rows)


def _is_whole(row: dict[str, Any]) -> bool:
    if row["status"] != "done":
        return False
    data = read_picture(row)
    return hashlib.sha256(data).hexdigest() == row["output_sha256"] and decode_image(data).size == (SIZE, SIZE)


def _judge_styles(work: Work, verdict: Verdict) -> None:
    catalog = StyleCatalog.open(work.root)
    versions = Counter(row.style_id for row in catalog.list())
    fixed = {f"style-{i}" for i in range(_FIXED)}
    verdict.lost += [f"{style} is not registered" for style in work.trained if not versions[style]]
    verdict.doubled += [f"{style} is registered {n} times" for style, n in versions.items() if n > 1]
    verdict.doubled += sorted({*versions} - {*work.trained} - fixed)
    found = [f for f in verify(catalog.tables) if isinstance(f, Finding) and f.kind != "orphan" and f.uri != _NONE]
    verdict.lost += [f"{f.style} {f.uri}: {f.message}" for f in found]
    verdict.counts["styles"], verdict.counts["versions"] = len(work.trained), sum(versions.values())
