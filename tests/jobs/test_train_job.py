"""jobs/train_styles.py, end to end on a tiny base: local disk and S3, kills, second runs, configuration errors."""

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from catalog.schema import StyleVersion
from catalog.store import StyleCatalog
from cluster.commandline.config_file import ConfigError, check, read_yaml
from cluster.storage import Storage
from jobs.finetuning.plan import make_plan
from jobs.finetuning.styles_file import StylesFile
from osasis.base import load_base, save_base
from osasis.checkpoint import load_style
from osasis.image import decode_image, fit, to_tensor
from osasis.settings import TrainConfig
from osasis.style_training import StyleTraining
from tests.support.jobs_run import call_job, kill_child_when, kill_job_when, run_job
from tests.support.tiny import make_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def styles_file(folder: Path, base: Path, storage: str, count: int = 2, **train: object) -> Path:
    """Styles with odd numbers are adapters."""
    styles: list[dict[str, Any]] = []
    for i in range(count):
        (folder / f"style {i}.png").write_bytes(picture(i))
        styles.append({"id": f"style-{i}", "image": str(folder / f"style {i}.png"), "tags": ["painting"]})
        if i % 2:
            styles[-1]["train"] = {"adapter_rank": 4, "spn_width": 16}
    path = folder / "styles.yaml"
    path.write_text(yaml.safe_dump({"base": str(base), "storage": storage, "train": train, "styles": styles}))
    return path


@pytest.mark.usefixtures("ray_cluster")
def test_two_styles_at_once_then_nothing_to_do(tmp_path: Path, base: Path, s3: Any) -> None:
    storage = Storage.open(s3.bucket_uri())
    file = styles_file(tmp_path, base, storage.uri)
    assert "2 to train by 2 workers on cpu, 1 CPU each." in call_job("train_styles", "--config", file)
    rows = StyleCatalog.open(storage).list()
    assert [(row.style_id, row.version, row.tags) for row in rows] == [
        ("style-0", 1, ["painting"]),
        ("style-1", 1, ["painting"]),
    ]
    assert [row.checkpoint_format for row in rows] == ["osasis-style-1", "osasis-adapter-1"]
    loaded = load_base(base)
    for row in rows:
        local = tmp_path / f"{row.style_id}.safetensors"
        Storage.open(row.checkpoint_uri).download_file("", local)
        assert load_style(local, loaded).header.style_id == row.style_id
        assert Image.open(io.BytesIO(Storage.open(row.preview_uri or "").read_bytes())).size == (8 * 256, 2 * 256)
        embedding = StyleCatalog.open(storage).show(str(row)).clip_embedding
        assert embedding is not None
        assert np.linalg.norm(embedding) == pytest.approx(1, rel=1e-3)
        assert row.base_fingerprint == loaded.fingerprint
    (record,) = storage.list_files("runs")
    assert '"outcome": "done"' in storage.read_bytes(f"runs/{record}").decode()

    settings = read_yaml(file)
    run_name = make_plan(check(settings, StylesFile), settings).styles[0].run_name  # left by a job that was killed
    lasting = [f"train/{run_name}/state-00000004.pt", f"leases/train/{run_name}/0000000001.json"]
    for name in lasting:
        storage.write_bytes(name, b"")
    assert "nothing to do" in call_job("train_styles", "--config", file)
    assert StyleCatalog.open(storage).list() == rows
    assert not [*storage.list_files("train"), *storage.list_files("leases")]

    for name in storage.list_files("catalog"):  # as if the driver had died before the rows were written
        storage.delete(f"catalog/{name}")
    output = call_job("train_styles", "--config", file)
    assert "registered" in output
    assert "to train" not in output
    again = StyleCatalog.open(storage).list()
    assert [(row.checkpoint_sha256, row.run_id) for row in again] == [
        (row.checkpoint_sha256, row.run_id) for row in rows
    ]


def test_what_changes_the_result_is_another_training(tmp_path: Path, base: Path) -> None:
    def key(**train: object) -> str:
        file = read_yaml(styles_file(tmp_path, base, str(tmp_path / "out"), count=1, **train))
        (style,) = make_plan(check(file, StylesFile), file).styles
        assert style.state == "train"
        return style.train_key

    assert key() == key() == key(seed=0)
    assert len({key(), key(seed=1), key(iterations=5), key(weights={"recon_l1": 1})}) == 4


def test_killed_in_the_middle_the_same_command_finishes(tmp_path: Path, base: Path) -> None:
    storage = tmp_path / "out"
    file = styles_file(tmp_path, base, str(storage), count=1, iterations=24)
    flags = ("--config", file, "--checkpoint-seconds", 0)
    states = storage / "train"
    kill_job_when("train_styles", *flags, condition=lambda: len(list(states.glob("style-*/state-*.pt"))) >= 2)
    catalog = StyleCatalog.open(Storage.open(storage))
    assert catalog.list() == []
    output = run_job("train_styles", *flags)
    assert "registered" in output
    assert not [path for path in states.rglob("*") if path.is_file()]
    assert [(row.style_id, row.version) for row in catalog.list()] == [("style-0", 1)]
    (row,) = catalog.list()
    assert_weights_of_an_uninterrupted_training(row, tmp_path, base)


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_style_resumed(tmp_path: Path, base: Path) -> None:
    storage = tmp_path / "out"
    flags = ("--config", styles_file(tmp_path, base, str(storage), count=1, iterations=24), "--checkpoint-seconds", 0)
    states = storage / "train"
    output = kill_child_when(
        "train_styles", *flags, child="RayTrainWorker",
        condition=lambda: len(list(states.glob("style-*/state-*.pt"))) >= 2,
    )  # fmt: skip
    assert "style-0: its worker died; it is resumed" in output
    assert not [path for path in states.rglob("*") if path.is_file()]
    (row,) = StyleCatalog.open(Storage.open(storage)).list()
    assert_weights_of_an_uninterrupted_training(row, tmp_path, base)


def assert_weights_of_an_uninterrupted_training(row: StyleVersion, folder: Path, base: Path) -> None:
    """Bit for bit, of a style of :func:`styles_file`."""
    torch.set_num_threads(1)
    config = TrainConfig.model_validate(row.train_config)
    picture = decode_image((folder / f"{row.style_id.replace('-', ' ')}.png").read_bytes())
    square, _ = fit(picture, 16, config.fit)
    training = StyleTraining(load_base(base), to_tensor(square)[None], config)
    assert all(math.isfinite(step["total"]) for step in training.run())
    assert hashlib.sha256(training.checkpoint(row.style_id, "official")).hexdigest() == row.checkpoint_sha256


def test_configuration_errors_come_all_at_once_with_their_place(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    path = tmp_path / "styles.yaml"
    path.write_text(
        f"base: {base}\nstorage: {tmp_path / 'out'}\nsyles_typo: 1\ntrain: {{iterations: -3}}\n"
        "styles:\n  - id: Bad Id\n    image: a.png\n"
    )
    output = call_job("train_styles", "--config", path, expect=2)
    for expected in ("styles.yaml:3 syles_typo", "styles.yaml:4 train", "styles.yaml:6 styles[0].id"):
        assert expected in output
    path.write_text(
        f"base: {tmp_path / 'nobase'}\nstorage: s3://no-such-bucket-here/x\n"
        f"styles:\n  - id: a\n    image: missing.png\n  - id: b\n    image: {tmp_path / 'text.png'}\n"
    )
    for name, value in {
        "ENDPOINT_URL": "http://127.0.0.1:9",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s3cr3t",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    output = call_job("train_styles", "--config", path, expect=2)
    for expected in (":1 base", ":2 storage", ":5 styles[0].image", ":7 styles[1].image"):
        assert expected in output
    assert "s3cr3t" not in output
    assert not (tmp_path / "out").exists()


def test_bad_flags_exit_with_2() -> None:
    assert "--help lists the flags" in call_job("train_styles", "--no-such-flag", expect=2)
    assert "nothing to train" in call_job("train_styles", "--storage", "x", expect=2)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_two_processes_share_styles_one_after_the_other(tmp_path: Path, base: Path) -> None:
    plain = {"dropout": False, "iterations": 2}  # masks are of each process's own
    file = styles_file(tmp_path, base, str(tmp_path / "alone"), **plain)
    call_job("train_styles", "--config", file)
    shared = ("--storage", tmp_path / "shared", "--processes-per-style", 2, "--workers", 1)
    told = call_job("train_styles", "--config", file, *shared)
    assert "2 to train by 1 workers on cpu, 2 CPU each." in told
    alone, together = (StyleCatalog.open(Storage.open(tmp_path / name)).list() for name in ("alone", "shared"))
    assert [row.style_id for row in together] == ["style-0", "style-1"]
    for one, other in zip(alone, together, strict=True):
        losses = {name: value for name, value in one.metrics.items() if name.startswith("loss_")}
        assert len(losses) > 3
        assert {name: other.metrics[name] for name in losses} == pytest.approx(losses, rel=1e-2, abs=1e-6)
    assert not [path for folder in ("train", "leases") for path in (tmp_path / "shared" / folder).rglob("*.*")]


def test_more_processes_than_contents_are_refused(tmp_path: Path, base: Path) -> None:
    file = styles_file(tmp_path, base, str(tmp_path / "out"), batch_size=2)
    said = call_job("train_styles", "--config", file, "--processes-per-style", 3, "--dry-run", expect=2)
    assert "3 processes cannot share batches of 2, as style-0 has" in said


@pytest.mark.slow
def test_a_style_of_two_processes_of_which_one_dies_is_the_undisturbed_one(tmp_path: Path, base: Path) -> None:
    file = styles_file(tmp_path, base, str(tmp_path / "quiet"), count=1, iterations=24)
    flags = ("--config", file, "--checkpoint-seconds", 0, "--processes-per-style", 2, "--workers", 1)
    run_job("train_styles", *flags)
    states = tmp_path / "hurt" / "train"
    output = kill_child_when(
        "train_styles", *flags, "--storage", tmp_path / "hurt", child="RayTrainWorker", which=1,
        condition=lambda: len(list(states.glob("style-*/state-*.pt"))) >= 2,
    )  # fmt: skip
    assert "style-0: " in output
    assert "it is resumed" in output
    (quiet,), (hurt,) = (StyleCatalog.open(Storage.open(tmp_path / name)).list() for name in ("quiet", "hurt"))
    assert hurt.checkpoint_sha256 == quiet.checkpoint_sha256


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_limit_of_gpu_memory_is_refused_on_cpus(tmp_path: Path, base: Path, more: tuple[str, ...]) -> None:
    file = styles_file(tmp_path, base, str(tmp_path / "out"))
    said = call_job("train_styles", "--config", file, "--memory", "24GB", *more, expect=2)
    assert "--memory: limits a GPU's memory (24.0GB), and this job computes on CPUs" in said
    assert StyleCatalog.open(Storage.open(tmp_path / "out")).list() == []


@pytest.mark.usefixtures("ray_cluster")
def test_a_users_own_photographs(tmp_path: Path, base: Path) -> None:
    """Read before anything starts, in the order of their names; what they are is part of what a training is."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for i, name in enumerate(("b.png", "a.png", "more/c.png")):
        (photos / name).write_bytes(picture(i))
    (photos / "notes.txt").write_text("no picture, and not named as one")

    def plan(count: int = 64) -> Any:
        content = {"photos": str(photos), "count": count}
        file = read_yaml(styles_file(tmp_path, base, str(tmp_path / "out"), count=1, content=content))
        return make_plan(check(file, StylesFile), file).styles[0]

    first = plan()
    assert first.content == tuple(str(photos / name) for name in ("a.png", "b.png", "more/c.png"))
    assert plan(count=2).content == first.content[:2]
    (photos / "b.png").write_bytes(picture(9))
    assert plan().train_key != first.train_key
    (photos / "d.png").write_text("not a picture")
    with pytest.raises(ConfigError, match=r"content.*d\.png: "):
        plan()
    (photos / "d.png").unlink()
    file = styles_file(tmp_path, base, str(tmp_path / "out"), count=1, content={"photos": str(photos)})
    call_job("train_styles", "--config", file)
    (row,) = StyleCatalog.open(Storage.open(tmp_path / "out")).list()
    torch.set_num_threads(1)
    loaded, config = load_base(base), TrainConfig.model_validate(row.train_config)
    images = torch.stack(
        [to_tensor(fit(decode_image(Path(uri).read_bytes()), 16, config.fit)[0]) for uri in plan().content]
    )
    reference, _ = fit(decode_image((tmp_path / "style 0.png").read_bytes()), 16, config.fit)
    training = StyleTraining(loaded, to_tensor(reference)[None], config, photos=images)
    list(training.run())
    assert hashlib.sha256(training.checkpoint("style-0", "official")).hexdigest() == row.checkpoint_sha256


def test_a_base_that_lacks_a_part_is_refused_before_work(tmp_path: Path, base: Path) -> None:
    bare = tmp_path / "bare"
    spec = load_base(base).spec
    save_base(bare, spec.model_copy(update={"photo_prior": None, "perceptual": None}), {})
    file = styles_file(tmp_path, bare, str(tmp_path / "out"), count=1)
    output = call_job("train_styles", "--config", file, expect=2)
    assert "lacks photo_prior" in output
    assert "lacks perceptual" in output
