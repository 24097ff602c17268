"""Measures of a base, and the job that reports them."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cluster.commandline.cli import ConfigError
from jobs import base_report
from osasis.base import bundled_bases, load_base
from osasis.diffusion import Schedule, linear_betas
from osasis.image import decode_image, fit
from osasis.pretrain.distortions import DISTORTIONS, mean_squares, two_alternative
from osasis.pretrain.measures import frechet_distance, psnr, round_trips
from tests.support.jobs_run import ROOT
from tests.support.tiny import make_tiny_base


def base_of(eps: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """What :func:`round_trips` needs of a base, with a denoiser in closed form."""
    return SimpleNamespace(
        diffae=SimpleNamespace(encoder=lambda x: x.flatten(1)[:, :2]),
        eps=lambda x, t, z: eps(x, t).to(x.dtype),
        ddim=Schedule.ddim,
    )


def test_psnr_of_a_known_gap() -> None:
    a = torch.zeros(2, 3, 4, 4)
    assert psnr(a, a + 0.2).tolist() == pytest.approx([20, 20], abs=1e-4)
    assert psnr(a + 5, a + 1).isinf().all()  # both are white


def test_a_perfect_denoiser_brings_photographs_back_and_is_told_from_a_blind_one() -> None:
    levels = (1 - linear_betas()).cumprod(0).float()
    variance = 0.04
    photos = 0.2 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def gaussian(x: Tensor, t: Tensor) -> Tensor:  # E[noise | x_t] where x_0 is N(0, variance)
        level = levels[t][:, None, None, None]
        return (1 - level).sqrt() * x / (level * variance + 1 - level)

    ends = round_trips(base_of(gaussian), photos, torch.randn_like(photos))
    quality = {name: psnr(pictures, photos).mean().item() for name, pictures in ends.items()}
    assert quality["full"] > 30
    assert quality["t0"] > 30
    assert quality["z"] < 25  # this z says nothing of the picture
    blind = round_trips(base_of(lambda x, t: torch.randn_like(x)), photos, torch.randn_like(photos), full=False)
    assert blind.keys() == {"t0", "z"}
    assert psnr(blind["t0"], photos).mean() < 18


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(8, 20), st.integers(8, 20))
def test_frechet_distance_is_the_textbook_formula(seed: int, width: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, (n, width)), rng.normal(0.5, 2, (m, width))
    s, t = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    roots = np.sqrt(np.clip(np.linalg.eigvals(s @ t).real, 0, None)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * roots
    assert frechet_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-5)
    assert frechet_distance(torch.tensor(a), torch.tensor(a)) == pytest.approx(0, abs=1e-8)


def portraits(count: int) -> np.ndarray:
    paths = sorted((ROOT / "samples" / "portraits").glob("*.jpg"))[:count]
    return np.stack([np.asarray(fit(decode_image(path.read_bytes()), 64)[0]) for path in paths])


def test_the_bundled_perceptual_distance_orders_distortions_better_than_l2() -> None:
    base = load_base(bundled_bases()["mini64"])
    backwards = {"backwards": lambda a, b: -mean_squares(a, b)}
    shares = two_alternative({"perceptual": base.perceptual, "L2": mean_squares, **backwards}, portraits(12))
    assert shares["perceptual"] > 0.95
    assert shares["perceptual"] > shares["L2"]
    assert shares["backwards"] == pytest.approx(1 - shares["L2"])
    assert {f"L2/{kind}" for kind in DISTORTIONS} < shares.keys()


def report(*flags: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["base_report.py", *map(str, flags)])
        assert base_report.main() == 0


def test_the_job_reports_what_the_base_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_tiny_base(tmp_path / "base")
    images = tmp_path / "images"
    images.mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "labels.csv").write_text(
        "file,split,smile\n" + "".join(f"{i}.png,dev,{'open' if i % 2 else 'none'}\n" for i in range(5))
        + "broken.png,dev,open\n0.png,train,open\n"
    )  # fmt: skip
    where = ("--base", base, "--images", images, "--table", tmp_path / "labels.csv", "--out", tmp_path / "out")
    report(*where, "--dry-run")
    assert "on 6 photographs" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    report(*where, "--count", 4, "--full", 2, "--batch-size", 2, "--samples", 3)
    output = capsys.readouterr().out
    assert "left out broken.png" in output
    assert "round trip/full" in output
    written = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert written["photographs"] == 5
    figures = written["figures"]
    assert all(math.isfinite(value) for value in figures.values())
    for name in ("round trip/t0, dB", "z alone/perceptual distance", "Fréchet/samples", "CLIP/smile/majority"):
        assert name in figures
    # The 2 photographs that made all journeys in 4 rows of the grid, each with a border of 2 pixels.
    assert Image.open(tmp_path / "out" / "round_trips.png").size == (2 * 18 + 2, 4 * 18 + 2)
    assert Image.open(tmp_path / "out" / "samples.png").size[0] == 3 * 18 + 2
    assert Image.open(tmp_path / "out" / "photo_prior.png").size[0] == 8 * 18 + 2
    with pytest.raises(ConfigError, match="holds no files"):
        report(*where[:2], "--images", tmp_path / "nothing", "--out", tmp_path / "x")
    with pytest.raises(ConfigError, match=r"size mismatch|Missing key"):
        report(*where, "--diffae", base / "diffae.safetensors", "--recipe", "mini64")
