"""jobs/train_base.py on a tiny recipe: data from folders, S3 and Parquet; refusals; kills; what it leaves."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save as dump_tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs import train_base
from jobs.pretraining import dataset
from jobs.pretraining.bundle import encode_bank
from jobs.pretraining.parts import make_trainer, part_file, part_weights
from jobs.pretraining.recipes import keep_plan, read_recipe
from jobs.pretraining.sources import open_source, read_chunk
from osasis.base import load_base
from osasis.content import encode_content
from osasis.errors import OsasisError
from osasis.networks.diffae import DiffAE
from tests.support.jobs_run import call_job, kill_child_when, run_job
from tests.support.tiny import SPEC, make_tiny_base, tiny_recipe


def picture(seed: int, size: tuple[int, int] = (44, 48)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Storage:
    """Eight good images and three that cannot be used, with a table that also names one that is not there."""
    images = Storage.open(tmp_path / "images")
    names = [f"a/{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        images.write_bytes(name, picture(i))
    images.write_bytes("b/broken.png", picture(8)[:300])
    images.write_bytes("b/text.png", b"not a picture")
    images.write_bytes("b/small.png", picture(9, (12, 40)))
    rows = [f"{name},train,{'open' if i % 2 else 'none'}" for i, name in enumerate(names)]
    rows += [f"b/{name}.png,train,open" for name in ("broken", "text", "small", "gone")] + ["a/0.png,dev,open"]
    (tmp_path / "labels.csv").write_text("file,split,smile\n" + "\n".join(rows) + "\n")
    return images


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    return path


def parquet(count: int, first: int = 0, struct: bool = False) -> bytes:
    data = [picture(first + i) if i != 2 else None for i in range(count)]
    image = [{"bytes": d, "path": "x"} if d else None for d in data] if struct else data
    columns = {"image": image, "smile": ["open", "none"] * (count // 2), "split": ["train"] * (count - 1) + ["dev"]}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=4)
    return buffer.getvalue()


def prepared(work: Storage, images: str, table: str | None = None) -> tuple[str, list[str]]:
    said: list[str] = []
    source = open_source(images, table, "train", "image", chunk_size=3)
    return dataset.prepare(source, work, 40, 16, said.append), said


@pytest.mark.usefixtures("ray_cluster")
def test_a_folder_is_decoded_once_and_what_cannot_be_used_is_listed(photos: Storage, tmp_path: Path) -> None:
    work = Storage.open(tmp_path / "work")
    name, said = prepared(work, photos.uri, str(tmp_path / "labels.csv"))
    assert sorted(line.split(": ")[0] for line in said) == [
        f"left out b/{file}.png" for file in ("broken", "gone", "small", "text")
    ]
    images = dataset.open_images(work, name)
    assert len(images) == 8
    assert images[0].shape == (40, 40, 3)
    assert isinstance(images[0], np.memmap)
    rows = dataset.read_rows(work, name)
    assert [row["file"] for row in rows] == [f"a/{i}.png" for i in range(8)]
    assert [row["smile"] for row in rows[:2]] == ["none", "open"]
    index = work.child(name)
    files = {f: index.stat(f) for f in index.list_files()}
    assert prepared(work, photos.uri, str(tmp_path / "labels.csv")) == (name, [])
    index.delete("index.json")  # killed before the end: chunks that are done are not decoded again
    assert prepared(work, photos.uri, str(tmp_path / "labels.csv"))[0] == name
    assert {f: index.stat(f) for f in files if f.startswith(("shard", "chunk"))} == {
        f: stat for f, stat in files.items() if f.startswith(("shard", "chunk"))
    }
    photos.write_bytes("a/0.png", picture(77))
    assert prepared(work, photos.uri, str(tmp_path / "labels.csv"))[0] != name  # other content is another set


@pytest.mark.usefixtures("ray_cluster")
def test_parquet_on_s3_with_its_labels(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSASIS_CACHE_DIR", str(tmp_path / "cache"))
    source, work = Storage.open(s3.bucket_uri()), Storage.open(s3.bucket_uri())
    source.write_bytes("part-0.parquet", parquet(6))
    source.write_bytes("part-1.parquet", parquet(4, first=6, struct=True))
    name, said = prepared(work, source.uri)
    assert said == [f"left out part-{i}.parquet[0:2]: no bytes" for i in (0, 1)]
    images, rows = dataset.open_images(work, name), dataset.read_rows(work, name)
    assert len(images) == len(rows) == 6  # of ten, two have no bytes and two are of another split
    assert {row["smile"] for row in rows} == {"open", "none"}
    with pytest.raises(ValueError, match="read-only"):
        images[0][0] = 0
    (shard, *_) = (tmp_path / "cache").rglob("shard-*.npy")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(OsasisError, match="is damaged"):
        dataset.open_images(work, name)


def test_shards_are_verified_when_a_node_first_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSASIS_CACHE_DIR", str(tmp_path / "cache"))
    work = Storage.open(tmp_path / "work")
    data = dataset.dump_array(np.zeros((2, 4, 4, 3), np.uint8))
    shard = {"name": "s.npy", "count": 2, "bytes": len(data), "sha256": "0" * 64}
    work.write_bytes("data/x/s.npy", data)
    work.write_bytes("data/x/index.json", json.dumps({"shards": [shard]}).encode())
    with pytest.raises(OsasisError, match="is damaged"):
        dataset.open_images(work, "data/x")


def test_chunks_of_parquet_have_every_row_once(tmp_path: Path) -> None:
    (tmp_path / "one.parquet").write_bytes(parquet(10))
    source = open_source(str(tmp_path / "one.parquet"), None, None, "image", 5)
    assert (source.count, len(source.chunks), source.labelled) == (10, 3, True)
    read = [item for chunk in source.chunks for item in read_chunk(source.storage, chunk)]
    assert [data == picture(i) for i, (_, data, _) in enumerate(read)] == [i != 2 for i in range(10)]
    assert len({row["file"] for row, _, _ in read}) == 10


def refused(*flags: object) -> str:
    """What the command says that refuses ``flags``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_base.py", *map(str, flags)])
        with pytest.raises(ConfigError) as error:
            train_base.main()
    return str(error.value)


def test_what_cannot_work_is_refused_before_anything_starts(photos: Storage, recipe: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "labels.csv"
    images = ("--images", photos.uri, "--out", out, "--name", "tiny", "--recipe", recipe)
    labelled = (*images, "--table", table)
    assert "needs labels" in refused(*images)
    assert "cannot be split evenly over 3 workers" in refused(*labelled, "--workers", 3)
    assert "no part 'difae'" in refused(*labelled, "--steps", "difae=3")
    assert "train diffae first" in refused(*labelled, "--parts", "latent")
    assert "holds no files" in refused(*images[2:], "--images", tmp_path / "nowhere", "--parts", "diffae")
    assert "has no rows of split 'test'" in refused(*labelled, "--split", "test")
    assert "no recipe 'mini65'" in refused(*labelled[:6], "--recipe", "mini65", "--table", table)
    assert "--name" in refused(*labelled, "--name", "Bad Name")
    few = {"diffae_training": {**tiny_recipe().diffae_training.model_dump(), "batch_size": 64}}
    recipe.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json") | few))
    assert "a batch of 64 of only 12 images" in refused(*labelled)
    recipe.write_text(recipe.read_text() + "agument: {}\n")
    assert "did you mean 'augment'?" in refused(*labelled)
    recipe.write_text("extends: mini64\nimage_size: 128\n")
    assert "unet.image_size is 64, image_size 128" in refused(*labelled)
    recipe.write_text("extends: mini64\n")
    other = make_tiny_base(tmp_path / "other")
    assert "networks of other sizes" in refused(*labelled, "--start-from", other)
    assert "no base" in refused(*labelled, "--start-from", tmp_path / "nothing")
    for text, message in (
        ("name,split\na,train\n", "has no column 'file'"),
        ("file,split\na/0.png,train,more\n", "labels.csv:2"),
        ("file,split\n../x.png,train\n", "cannot name a file"),
        ("file,split\nzzz.png,train\n", "no file of the table is in"),
    ):
        table.write_text(text)
        assert message in refused(*labelled)
    (tmp_path / "p.parquet").write_bytes(parquet(4))
    parquets = ("--images", tmp_path / "p.parquet", "--out", out, "--name", "tiny")
    assert "has no column 'picture'" in refused(*parquets, "--image-column", "picture")
    assert "not bytes" in refused(*parquets, "--image-column", "smile")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    assert "p.parquet" in refused(*parquets)
    assert not out.exists()


def test_a_recipe_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "dogs.yaml"
    former = "photo_training: {bf16: false}"  # as former versions spelled it
    path.write_text(f"extends: mini64\naugment: {{zoom: 0.1}}\ndiffae_training: {{batch_size: 24}}\n{former}\n")
    recipe, base = read_recipe(str(path), {"latent": 7}), read_recipe("mini64", {})
    assert (recipe.augment.zoom, recipe.augment.flip) == (0.1, 0.5)
    assert recipe.diffae_training == base.diffae_training.model_copy(update={"batch_size": 24})
    assert recipe.latent_prior_training.steps == 7
    assert recipe.photo_prior_training == base.photo_prior_training.model_copy(update={"precision": "float32"})
    assert recipe.unet == base.unet


def test_a_working_folder_is_of_one_size_of_networks(tmp_path: Path) -> None:
    work = Storage.open(tmp_path)
    keep_plan(tiny_recipe(), work, write=True)
    keep_plan(tiny_recipe().model_copy(update={"bank_size": 2}), work, write=True)
    other = tiny_recipe().model_copy(update={"unet": SPEC.unet.model_copy(update={"dropout": 0.3})})
    with pytest.raises(ConfigError, match="another unet"):
        keep_plan(other, work, write=False)


def test_a_dry_run_tells_the_costs_and_touches_nothing(photos: Storage, recipe: Path, tmp_path: Path) -> None:
    flags = ("--images", photos.uri, "--out", tmp_path / "out", "--name", "tiny", "--parts", "diffae")
    output = call_job("train_base", *flags, "--recipe", recipe, "--dry-run", "--gflops", 100)
    assert "Least time" in output
    parameters = sum(p.numel() for p in DiffAE(SPEC.unet, SPEC.encoder).parameters())
    assert f"{parameters:,}" in output
    assert not (tmp_path / "out").exists()


def test_the_bank_is_encoded_by_the_networks_that_the_bundle_keeps(tmp_path: Path) -> None:
    base, work = load_base(make_tiny_base(tmp_path / "base")), Storage.open(tmp_path / "work")
    work.write_bytes(
        part_file("diffae"), dump_tensors({k: v.contiguous() for k, v in base.diffae.state_dict().items()})
    )
    photos = torch.rand(3, 3, 16, 16) * 2 - 1
    options = {"num_cpus": 1.0, "num_gpus": 0.0}
    bank = encode_bank(base.spec, tiny_recipe(), work, photos, options)
    expected = encode_content(base, photos, steps=10, t0_ratio=0.5)
    torch.testing.assert_close(bank["z_in"], expected.z_in)
    torch.testing.assert_close(bank["x_t0"], expected.x_t0, rtol=1e-4, atol=1e-4)
    assert (bank["photos"].dtype, int(bank["steps"]), int(bank["t0_per_mille"])) == (torch.uint8, 10, 500)


def losses_of(work: Path, part: str) -> dict[int, set[float]]:
    """Step → every loss that a TensorBoard file tells of it."""
    found: dict[int, set[float]] = {}
    for path in (work / "tensorboard" / part).iterdir():
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for event in events.Scalars("loss"):
            found.setdefault(event.step, set()).add(event.value)
    return found


def test_a_killed_worker_goes_on_with_the_losses_of_an_uninterrupted_run(
    photos: Storage, recipe: Path, tmp_path: Path
) -> None:
    base, steps = make_tiny_base(tmp_path / "base"), 150
    work = tmp_path / "out" / ".work"
    flags = ("--images", photos.uri, "--recipe", recipe, "--name", "tiny", "--out", tmp_path / "out")
    flags += ("--parts", "diffae", "--steps", f"diffae={steps}", "--checkpoint-every", 20, "--start-from", base)
    states = work / "train"
    kill_child_when(
        "train_base", *flags, child="RayTrainWorker",
        condition=lambda: len(list(states.glob("pretrain-diffae/checkpoint*/state.pt"))) >= 2
        and not (work / "parts" / "diffae.safetensors").exists(),
    )  # fmt: skip
    seen = losses_of(work, "diffae")
    assert len(list((work / "tensorboard" / "diffae").iterdir())) == 2  # one of the killed worker, one of the next
    torch.set_num_threads(1)
    settings = read_recipe(str(recipe), {"diffae": steps})
    (data,) = [f"data/{path.name}" for path in (work / "data").iterdir()]
    trainer = make_trainer("diffae", settings, Storage.open(work), data, "cpu", lambda module: module)
    trainer.start_from(part_weights(str(base), "diffae"))
    expected = {step + 1: {float(np.float32(trainer.step()["loss"]))} for step in range(steps)}
    assert seen == expected
    made = load_base(tmp_path / "out")
    for name, value in trainer.averaged.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(made.diffae.state_dict()[name], value.half().float()), name
    (record,) = [json.loads(path.read_bytes()) for path in (work / "runs").iterdir()]
    assert record["outcome"] == "done"
    assert record["counts"] == {"images": 8, "left_out": 3}
    assert record["metrics"]["diffae/loss"] == pytest.approx(
        np.mean([max(expected[i]) for i in range(steps - 99, steps + 1)]), rel=0.2
    )
    sample = Image.open(work / "samples" / f"diffae-{steps:07d}.png")
    assert sample.size == (8 * 18 + 2, 2 * 18 + 2)


@pytest.mark.slow
def test_all_parts_from_parquet_on_s3_by_two_workers(s3: Any, recipe: Path) -> None:
    source, out = Storage.open(s3.bucket_uri()), Storage.open(s3.bucket_uri())
    source.write_bytes("part-0.parquet", parquet(12))
    flags = ("--images", source.uri, "--recipe", recipe, "--name", "tiny", "--out", out.uri, "--workers", 2)
    assert f"Base tiny is in {out}" in run_job("train_base", *flags)
    names = out.list_files()
    assert {"base.json", "diffae.safetensors", "latent_prior.safetensors", "photo_prior.safetensors"} <= set(names)
    for part in ("diffae", "latent_prior", "photo_prior", "clip"):
        assert any(name.startswith(f".work/tensorboard/{part}/") for name in names)
    for part in ("diffae", "latent_prior", "photo_prior"):
        assert any(name.startswith(f".work/samples/{part}-") for name in names)
    before = {name: out.stat(name) for name in names if name.startswith(".work/parts/")}
    assert "diffae: done" in run_job("train_base", *flags)  # nothing is trained again
    assert {name: out.stat(name) for name in before} == before
