"""jobs/import_base.py and jobs/import_style.py: the release's files become a base and a style that stylizes alike."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import jobs.import_base
import jobs.import_style
from catalog.probes import PROBE_SET, probe_photos
from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.shared.bases import open_base
from osasis.checkpoint import load_style
from osasis.image import encode_png, to_image
from osasis.settings import StylizeConfig
from osasis.stylize import encode, encoding_for, stylize
from tests.support.jobs_run import call_job


@pytest.fixture(scope="module")
def official(golden_folders: dict[str, Path]) -> Path:
    return golden_folders["small"] / "official"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """What no tensor of the small folder shows."""
    path, latent = tmp_path / "given.yaml", {"activation": "relu", "condition_bias": 0}
    heads = {"num_heads": 2}
    path.write_text(yaml.safe_dump({"unet": heads, "encoder": heads | {"num_res_blocks": 1}, "latent_prior": latent}))
    return path


def base_flags(official: Path, config: Path, out: str, **more: object) -> list[str]:
    flags = {
        "name": "small", "out": out, "diffae": official / "base_autoenc_latent" / "last.ckpt", "config": config,
        "latent-stats": official / "base_autoenc" / "latent.pkl", "photo-prior": official / "base_p2.pt",
        "photo-prior-head-channels": 16,
    } | more  # fmt: skip
    return [f"--{name}={value}" for name, value in flags.items()]


def run(job: Any, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr("sys.argv", ["job", *flags])
    return int(job.main())


def test_a_base_and_a_style_stylize_as_the_release(
    storage: Storage, golden_folders: dict[str, Path], official: Path, config: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = storage.child("bases", "small").uri
    assert run(jobs.import_base, monkeypatch, *base_flags(official, config, out), "--dry-run") == 0
    assert not storage.list_files()
    assert not (tmp_path / "storage").exists()
    assert "Not given, so absent from the bundle: clip, perceptual" in capsys.readouterr().out
    assert run(jobs.import_base, monkeypatch, *base_flags(official, config, out)) == 0
    assert run(jobs.import_base, monkeypatch, *base_flags(official, config, out)) == 0
    assert "nothing to do" in capsys.readouterr().out
    (record,) = storage.list_files("bases/small/.work/runs")
    assert '"outcome": "done"' in storage.read_bytes(f"bases/small/.work/runs/{record}").decode()
    with pytest.raises(ConfigError, match="holds another base: small"):
        run(jobs.import_base, monkeypatch, *base_flags(official, config, out, **{"photo-prior-head-channels": 32}))

    g = load_file(golden_folders["small"] / "training.safetensors")
    image = tmp_path / "art.png"
    image.write_bytes(encode_png(to_image(g["style_image"][0])))
    flags = [
        f"--storage={storage.uri}", f"--base={out}", "--id=art", f"--checkpoint={official / 'ckpt' / 'iter_2.pt'}",
        f"--image={image}", f"--photo={image}", "--tags=painting",
    ]  # fmt: skip
    flags += ["--preview"] if storage.is_local else []  # most of the test's time
    assert run(jobs.import_style, monkeypatch, *flags, "--dry-run") == 0
    assert run(jobs.import_style, monkeypatch, f"--storage={tmp_path}/none", *flags[1:], "--dry-run") == 0
    assert not (tmp_path / "none").exists()
    assert StyleCatalog.open(storage).list() == []
    assert run(jobs.import_style, monkeypatch, *flags) == 0
    assert run(jobs.import_style, monkeypatch, *flags) == 0
    assert "nothing to do" in capsys.readouterr().out
    (row,) = StyleCatalog.open(storage).list()
    assert (row.style_id, row.preset, row.tags, row.train_config["iterations"]) == ("art", "official", ["painting"], 2)
    assert row.train_config["spn"] == "time"
    if storage.is_local:
        assert row.probe_set == PROBE_SET
        assert row.preview_uri
        side = 256  # the portraits' own size
        preview = Image.open(BytesIO(Storage.open(row.preview_uri).read_bytes()))
        assert preview.size == (len(probe_photos()) * side, 2 * side)
        photos, stylized = np.vsplit(np.asarray(preview, dtype=int), 2)
        assert np.abs(photos - stylized).mean() > 1

    base = open_base(out, "cpu", tmp_path / "cache")
    local = tmp_path / "style.safetensors"
    Storage.open(row.checkpoint_uri).download_file("", local)
    style = load_style(local, base)
    g = load_file(golden_folders["small"] / "inference.safetensors")
    assert (style.z_style - g["z_style"]).norm() < 0.05 * g["z_style"].norm()  # the picture has 8 bits
    style.z_style.copy_(g["z_style"])
    settings = StylizeConfig(t0_ratio=0.6, encode_steps=20, decode_steps=10, lambda_spn=0.2, style_levels=(0,))
    ours = stylize(style, encode(base, g["image"], encoding_for(style, settings)), settings)
    assert (ours - g["stylized"]).norm() <= 1e-4 * g["stylized"].norm()


def test_every_wrong_file_is_named_and_nothing_is_written(official: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prior = official / "base_p2.pt"
    torch.save({"conds_mean": torch.zeros(3), "conds_std": torch.zeros(3)}, tmp_path / "latent.pkl")
    wrong = {"latent-stats": tmp_path / "latent.pkl", "photo-prior": official / "ckpt" / "iter_2.pt", "clip": prior}
    output = call_job("import_base", *base_flags(official, config, str(out), **wrong), expect=2)
    for expected in (
        "latent.pkl: conds_mean has 3 values",
        "iter_2.pt holds no state dict",
        "base_p2.pt: visual.conv1",
    ):
        assert expected in output
    missing = base_flags(official, config, str(out), diffae=tmp_path / "none.ckpt")
    assert "none.ckpt: no such file" in call_job("import_base", *missing, expect=2)
    assert not out.exists()


def test_a_style_needs_its_own_base(official: Path, tmp_path: Path) -> None:
    image = tmp_path / "art.png"
    image.write_bytes(encode_png(to_image(torch.zeros(3, 64, 64))))
    flags = ("--storage", tmp_path / "out", "--base", "mini64", "--id", "art", "--image", image, "--checkpoint")
    output = call_job("import_style", *flags, official / "ckpt" / "iter_2.pt", expect=2)
    assert "iter_2.pt: diffae_B: " in output
    assert "cond_emb_layers" in output or "shape" in output
    assert not (tmp_path / "out").exists()
