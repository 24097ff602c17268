"""benchmarks/sweep_styles.py on a tiny base, and the measures it prints."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmarks import sweep_styles
from cluster.commandline.cli import ConfigError
from osasis.metrics import structural_similarity
from tests.support.tiny import make_tiny_base


def sweep(*flags: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sweep_styles.py", *map(str, flags)])
        assert sweep_styles.main() == 0


def test_every_setting_is_measured_once_and_never_again(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    settings = {"plain": {}, "same": {}, "spn-0": {"train": {"lambda_spn": 0}, "stylize": {"lambda_spn": 0}}}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"references": {"a": {"image": str(tmp_path / "0.png")}}, "settings": settings}))
    out = tmp_path / "out"
    flags = ("--sweep", file, "--base", base, "--photos", tmp_path, "--count", 2, "--out", out)
    sweep(*flags, "--only", "spn-0")
    first = (out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(first + '{"key": "cut sho')  # killed while it wrote
    sweep(*flags)
    lines = (out / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    assert first.strip() == lines[0]
    assert [row["setting"] for row in rows] == ["spn-0", "plain"]  # the same setting by another name is made once
    assert Image.open(out / "plain-a.png").size == (3 * 16, 2 * 16)
    table = (out / "table.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| plain", "| same", "| spn-0"]
    before = (out / "results.jsonl").read_bytes()
    sweep(*flags)
    assert (out / "results.jsonl").read_bytes() == before

    settings["bad"] = {"train": {"no_such_field": 1}}
    file.write_text(yaml.safe_dump({"references": {"a": {"image": str(tmp_path / "0.png")}}, "settings": settings}))
    with pytest.raises(ConfigError, match="no_such_field"):
        sweep(*flags)


def test_structural_similarity_knows_equal_weaker_and_inverted_pictures() -> None:
    photos = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).mul(0.4).repeat_interleave(8, 2)
    photos = photos.repeat_interleave(8, 3)
    assert structural_similarity(photos, photos).tolist() == pytest.approx([1, 1, 1])
    assert (structural_similarity(photos, 0.9 * photos) > 0.9).all()
    assert (structural_similarity(photos, -photos) < 0.6).all()
