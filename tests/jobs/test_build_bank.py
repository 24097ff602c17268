"""jobs/build_bank.py: a base gets its content bank, and stays the base that it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osasis.base import load_base, load_spec
from osasis.content import stored_bank
from osasis.settings import train_config
from osasis.style_training import training_content
from tests.support.jobs_run import call_job
from tests.support.tiny import SIZE, make_tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_base(tmp_path / "base", bank=False)


def test_a_bank_is_what_a_training_would_have_drawn(folder: Path) -> None:
    before = load_base(folder)
    config = train_config("official", before.spec.train_defaults, {"content": {"count": 5}})
    drawn = training_content(before, config)
    assert "5 photographs" in call_job("build_bank", "--base", folder, "--count", 5)
    base = load_base(folder)
    assert base.fingerprint == before.fingerprint
    bank = stored_bank(base, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=config.clamp)
    assert bank is not None
    torch.testing.assert_close(bank.photos, drawn.photos.clamp(-1, 1), rtol=0, atol=0.005)  # 8 bits
    torch.testing.assert_close(bank.x_t0, drawn.x_t0, rtol=0, atol=0.01)
    assert "already" in call_job("build_bank", "--base", folder, "--count", 3)
    call_job("build_bank", "--base", folder, "--count", 3, "--replace")
    assert len(load_base(folder).bank_tensors["photos"]) == 3


def test_a_bank_of_a_folder_of_photographs(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        pixels = np.full((SIZE, SIZE, 3), 50 * i, np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    call_job("build_bank", "--base", folder, "--photos", photos, "--count", 2)
    assert load_base(folder).bank_tensors["photos"][:, 0, 0, 0].tolist() == [0, 50]


def test_a_dry_run_writes_nothing_and_a_bundled_base_is_refused(folder: Path) -> None:
    call_job("build_bank", "--base", folder, "--dry-run")
    assert "content_bank.safetensors" not in load_spec(folder).files
    assert "comes with the package" in call_job("build_bank", "--base", "mini64", expect=2)
    assert "no base" in call_job("build_bank", "--base", folder / "none", expect=2)
