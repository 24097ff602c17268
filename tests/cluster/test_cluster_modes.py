"""The three jobs on a cluster that is already there: by RAY_ADDRESS and by `ray job submit`, on disk and on S3."""

import csv
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from catalog.filters import Condition
from catalog.store import StyleCatalog
from cluster.storage import Storage
from osasis.base import load_base
from tests.support.jobs_run import ROOT, run_job
from tests.support.ray_head import RAY, Head, running_head
from tests.support.tiny import make_tiny_base, tiny_recipe


@pytest.fixture(scope="module")
def head(s3: Any) -> Iterator[Head]:
    with running_head(cpus=4) as head:
        yield head


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six portraits with a caption table, a tiny recipe, and a style."""
    folder = tmp_path_factory.mktemp("inputs")
    portraits = sorted((ROOT / "samples" / "portraits").glob("*.jpg"))[:6]
    (folder / "images").mkdir()
    for path in portraits:
        shutil.copy(path, folder / "images")
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file", "split", "person", "smile"])
        table.writeheader()
        table.writerows({"file": p.name, "split": "train", "person": "man", "smile": "open"} for p in portraits)
    (folder / "recipe.json").write_text(tiny_recipe().model_dump_json())
    return folder


def styles_file(folder: Path, base: str, storage: str, style_id: str) -> Path:
    path = folder / f"{style_id}.yaml"
    style = {"id": style_id, "image": str(ROOT / "samples/styles/van-gogh-1889.jpg")}
    train = {"iterations": 2, "batch_size": 2, "encode_steps": 10, "decode_steps": 5}
    train |= {"style_photo": {"steps": 10, "candidates": 1}}
    path.write_text(yaml.safe_dump({"base": base, "storage": storage, "train": train, "styles": [style]}))
    return path


@pytest.mark.slow
def test_a_base_by_submission_and_by_address(head: Head, inputs: Path, s3: Any, tmp_path: Path) -> None:
    base = s3.bucket_uri()
    make = ("--images", inputs / "images", "--table", inputs / "labels.csv", "--recipe", inputs / "recipe.json")
    make += ("--name", "tiny", "--workers", 2)
    log = head.submit("train_base", *make, "--out", base)
    assert f"Base tiny is in {base}" in log
    local_base = tmp_path / "base"
    for name in Storage.open(base).list_files():
        if not name.startswith("."):
            Storage.open(base).download_file(name, local_base / name)
    spec = load_base(local_base).spec
    assert {"diffae.safetensors", "clip.safetensors", "content_bank.safetensors"} <= spec.files.keys()
    run_job("train_base", *make, "--out", tmp_path / "b2", "--parts", "diffae", env=head.env)
    assert (tmp_path / "b2" / "base.json").exists()


@pytest.fixture
def base(tmp_path: Path, s3: Any) -> str:
    """A tiny base on S3."""
    base = s3.bucket_uri()
    for path in make_tiny_base(tmp_path / "base").iterdir():
        Storage.open(base).upload_file(path, path.name)
    return base


def stylize_flags(inputs: Path, base: str, storage: str) -> tuple[object, ...]:
    flags = ("--storage", storage, "--base", base, "--encode-steps", 10, "--decode-steps", 5)
    return (*flags, "--input", inputs / "images", "--output", f"{storage}/out")


def check_pictures(storage: str, expected: list[str]) -> None:
    """Of each style named, six."""
    output = Storage.open(f"{storage}/out")
    table = DeltaTable(output.delta_uri("manifest"), storage_options=output.delta_options()).to_pyarrow_table()
    rows = table.to_pylist()
    assert sorted((row["style_id"], row["status"]) for row in rows) == [(name, "done") for name in expected]
    assert len({row["output_uri"] for row in rows}) == len(expected)
    assert all(Storage.open(row["output_uri"]).exists() for row in rows)


def test_a_style_by_submission_and_pictures_by_address(
    head: Head, inputs: Path, base: str, s3: Any, tmp_path: Path
) -> None:
    storage = s3.bucket_uri()
    head.submit("train_styles", "--config", styles_file(tmp_path, base, storage, "submitted"))
    assert [str(version) for version in StyleCatalog.open(Storage.open(storage)).list()] == ["submitted@1"]
    run_job("stylize", *stylize_flags(inputs, base, storage), "--styles", "all", env=head.env)
    check_pictures(storage, ["submitted"] * 6)


@pytest.mark.slow
def test_a_style_by_address_and_pictures_by_submission(
    head: Head, inputs: Path, base: str, s3: Any, tmp_path: Path
) -> None:
    storage = s3.bucket_uri()
    run_job("train_styles", "--config", styles_file(tmp_path, base, storage, "addressed"), env=head.env)
    head.submit("stylize", *stylize_flags(inputs, base, storage), "--styles", "addressed")
    check_pictures(storage, ["addressed"] * 6)

    measured = ("--storage", storage, "--base", base, "--styles", "addressed", "--content", inputs / "images")
    measured += ("--encode-steps", 10, "--decode-steps", 5, "--output", f"{storage}/evaluation")
    head.submit("evaluate", *measured)
    output = Storage.open(f"{storage}/evaluation")
    table = DeltaTable(output.delta_uri("evaluation"), storage_options=output.delta_options()).to_pyarrow_table()
    assert Counter((row["method"], row["status"]) for row in table.to_pylist()) == {
        (method, "done"): 6 for method in ("ours", "colour-transfer", "photograph")
    }
    assert "ArtFID" in output.read_bytes("report.md").decode()
    catalog = StyleCatalog.open(Storage.open(storage))
    assert [str(version) for version in catalog.list(where=[Condition.parse("artfid>0")])] == ["addressed@1"]
    assert "18 pairs measured" in run_job("evaluate", *measured, env=head.env)


def test_exit_codes_reach_the_job_list(head: Head) -> None:
    log = head.submit("train_styles", "--config", "no-such-file.yaml", expect=2)
    assert "no-such-file.yaml" in log
    jobs = subprocess.run([RAY, "job", "list"], env=head.env, capture_output=True, text=True, check=True, timeout=60)
    assert "exit code 2" in jobs.stdout.replace("\n", " ") or "driver_exit_code=2" in jobs.stdout, json.dumps(
        jobs.stdout
    )
