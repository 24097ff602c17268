"""Density selection: the measure against a denoiser in closed form, and the job on disk and on S3."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from deltalake import DeltaTable
from torch import Tensor

import jobs.rank_density
from cluster.commandline.cli import ConfigError, ExitCode
from cluster.storage import Storage
from jobs.rank_density import HIGH, LOW, RankFlags, resolve, stages, write_lists
from jobs.streaming.execution import Execution
from jobs.streaming.planning import Tally
from jobs.streaming.ranking import Ranker
from jobs.streaming.run import run as run_stages
from osasis.base import Base, load_base
from osasis.density import density_distance, stochastic_reconstruction
from osasis.diffusion import Schedule, linear_betas
from osasis.image import decode_image, fit, to_tensor
from osasis.settings import DensityConfig
from tests.support.hostile import encoded, picture
from tests.support.in_process import without_cluster
from tests.support.tiny import SIZE, SPEC, make_tiny_base

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not import tests

FAST = DensityConfig(steps=5)


def memory_base() -> Any:
    """A base whose z_sem is the picture halved in contrast, and whose denoiser gives exactly what z_sem holds."""
    alpha_bar = (1 - linear_betas()).cumprod(0)

    def eps(x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        a = alpha_bar[t].float()[:, None, None, None]
        return (x - a.sqrt() * z) / (1 - a).sqrt()

    return SimpleNamespace(
        diffae=SimpleNamespace(encoder=lambda images: images / 2),
        eps=eps,
        ddim=Schedule.ddim,
        spec=SPEC,
        perceptual=lambda a, b: (a - b).square().mean((1, 2, 3)),
    )


def test_what_z_sem_keeps_comes_back_from_any_noise() -> None:
    images = torch.stack([torch.full((3, SIZE, SIZE), level) for level in (0.0, 0.4, -0.8)])
    rebuilt = stochastic_reconstruction(memory_base(), images, ["a", "b", "c"], steps=20, seed=0)
    assert torch.allclose(rebuilt, images / 2, atol=1e-4)
    distances = density_distance(memory_base(), images, ["a", "b", "c"], DensityConfig(draws=2))
    assert torch.allclose(distances, torch.tensor([0.0, 0.04, 0.16]), atol=1e-4)


def test_noise_belongs_to_the_picture(tmp_path: Path) -> None:
    base: Base = load_base(make_tiny_base(tmp_path, bank=False))
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = density_distance(base, images, ["a", "b", "c"], FAST)
    assert torch.equal(together, density_distance(base, images, ["a", "b", "c"], FAST))
    assert torch.allclose(together[1:2], density_distance(base, images[1:2], ["b"], FAST), rtol=1e-3)
    for other in (DensityConfig(steps=5, seed=1), DensityConfig(steps=5, draws=2)):
        assert not torch.allclose(together, density_distance(base, images, ["a", "b", "c"], other), rtol=1e-3)
    with pytest.raises(ValueError, match="no integer stride"):
        DensityConfig(steps=600)


class Fussy(Ranker):
    """Fails for one input."""

    def results(self, variant: Any, batch: Any) -> Any:
        if any(row["key"] == "00002.png" for row in batch.rows):
            raise RuntimeError("not this one")
        return super().results(variant, batch)


def refuse_to_connect(*_: Any) -> None:
    raise AssertionError("Ray was asked for")


def flags(root: Storage, base: Path, **more: Any) -> dict[str, Any]:
    return {
        "input": root.child_uri("in"), "output": root.child_uri("out"), "base": str(base), "steps": 5, "count": 2,
        "batch_size": 2, "workers": 1, **more,
    }  # fmt: skip


def run(root: Storage, base: Path, worker: type[Ranker] = Ranker, **more: Any) -> Tally:
    tally = Tally()
    job = resolve(RankFlags(**flags(root, base, **more)))
    run_stages(replace(stages(job, "test-run"), worker=worker), job.flags, tally)
    write_lists(job)
    return tally


def test_ranking_a_folder(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_cluster(monkeypatch)
    base = make_tiny_base(tmp_path / "base", bank=False)
    files = {f"0000{i}.png": encoded(picture(24, 20, seed=i), "PNG") for i in range(4)}
    for name, data in (files | {"bad.png": b"x"}).items():
        storage.write_bytes(f"in/{name}", data)
    assert run(storage, base, Fussy).now == {"done": 3, "rejected": 1, "failed": 1}
    assert run(storage, base, retry_failed=True).now == {"done": 1}

    out = storage.child("out")
    table = DeltaTable(out.delta_uri("density"), storage_options=out.delta_options()).to_pyarrow_table().to_pylist()
    rows = {row["input_uri"].rpartition("/")[2]: row for row in table}
    assert len(table) == len(rows) == 5
    assert (rows["bad.png"]["error_type"], rows["bad.png"]["distance"]) == ("not-an-image", None)
    pictures = torch.stack([to_tensor(fit(decode_image(data), SIZE)[0]) for data in files.values()])
    keys = [rows[name]["input_sha256"] for name in files]
    expected = density_distance(load_base(base), pictures, keys, FAST).tolist()
    assert [rows[name]["distance"] for name in files] == pytest.approx(expected, rel=1e-3)
    order = sorted(files, key=lambda name: rows[name]["distance"])
    lists = {name: out.read_bytes(name).decode().split() for name in (LOW, HIGH)}
    assert lists == {
        HIGH: [storage.child_uri(f"in/{name}") for name in order[:2]],
        LOW: [storage.child_uri(f"in/{name}") for name in order[:1:-1]],
    }

    monkeypatch.setattr(Execution, "connected", refuse_to_connect)
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in flags(storage, base, count=3).items()]
    monkeypatch.setattr("sys.argv", ["rank_density.py", *argv])
    assert jobs.rank_density.main() == ExitCode.RECORDED_FAILURES, "the rejected picture still counts"
    assert len(out.read_bytes(LOW).split()) == 3, "another count needs no new measurement"
    (record,) = out.list_files("runs")
    assert json.loads(out.read_bytes(f"runs/{record}"))["counts"]["decided_before"] == 5
    with pytest.raises(ConfigError, match="other parameters"):
        run(storage, base, seed=1)


@pytest.mark.usefixtures("ray_cluster")
def test_ranking_on_a_cluster(tmp_path: Path) -> None:
    storage, base = Storage.open(tmp_path / "root"), make_tiny_base(tmp_path / "base", bank=False)
    for i in range(3):
        storage.write_bytes(f"in/{i}.png", encoded(picture(24, 20, seed=i), "PNG"))
    assert run(storage, base).now == {"done": 3}
    assert len(storage.read_bytes(f"out/{LOW}").split()) == 2


def test_problems_and_dry_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(tmp_path / "root")
    with pytest.raises(ConfigError) as caught:
        resolve(RankFlags(input=storage.child_uri("in"), output=storage.child_uri("in/out"), base="nowhere"))
    assert {problem.place for problem in caught.value.problems} == {"--input", "--output", "--base"}
    base = make_tiny_base(tmp_path / "base", bank=False)
    storage.write_bytes("in/a.png", encoded(picture(), "PNG"))
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in flags(storage, base).items()]
    monkeypatch.setattr("sys.argv", ["rank_density.py", *argv, "--dry-run"])
    before = storage.list_files()
    assert jobs.rank_density.main() == ExitCode.DONE
    assert storage.list_files() == before
