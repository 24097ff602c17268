"""benchmarks/text_editing.py runs, judges and draws; and its classifier learns what there is to learn."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmarks.text_editing
from benchmarks.attributes import ATTRIBUTES, labels, train
from cluster.commandline.cli import ConfigError, ExitCode
from osasis.image import decode_image
from tests.support.hostile import encoded, picture
from tests.support.tiny import SIZE, make_tiny_base


def test_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encoded(picture(24, 20, seed=i), "PNG"))
        has = i % 4 < 2
        row = {"file": f"{i}.png", "split": "train" if i % 2 else "dev", "person": "man"}
        seen = {"smile": "open", "glasses": "yes", "beard": "beard"}
        rows.append(row | (seen if has else {"smile": "none", "glasses": "no", "beard": "none"}))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    base = make_tiny_base(tmp_path / "base", bank=False)
    flags = {
        "portraits": tmp_path, "base": base, "count": 2, "strengths": "1,2", "epochs": 1, "encode-steps": 10,
        "decode-steps": 5, "text-steps": 1, "text-decode-steps": 1, "out": tmp_path / "out",
    }  # fmt: skip
    monkeypatch.setattr("sys.argv", ["text_editing.py", *(f"--{name}={value}" for name, value in flags.items())])
    with pytest.raises(ConfigError, match="knows none of glasses"):
        benchmarks.text_editing.main()
    known = [replace(attribute, prompt="smiling painting") for attribute in ATTRIBUTES]
    monkeypatch.setattr(benchmarks.text_editing, "ATTRIBUTES", known)
    assert benchmarks.text_editing.main() == ExitCode.DONE
    shown = capsys.readouterr().out
    assert shown.count("smiling painting") == 6, "three attributes at two strengths"
    grids = [decode_image((tmp_path / "out" / f"{attribute.name}.png").read_bytes()) for attribute in known]
    assert {grid.size for grid in grids} == {(2 * SIZE, 4 * SIZE)}


def test_the_classifier_learns() -> None:
    """Brightness stands for a smile, redness for glasses; beards are unknown."""
    torch.manual_seed(0)
    smile, glasses = torch.rand(2, 64) < 0.5
    images = 0.2 * torch.randn(64, 3, 64, 64)
    images += torch.where(smile, 0.6, -0.6)[:, None, None, None]
    images[:, 0] += torch.where(glasses, 0.6, -0.6)[:, None, None]
    rows = [
        {"smile": "open" if a else "none", "glasses": "yes" if b else "no", "beard": "beard" if i < 2 else ""}
        for i, (a, b) in enumerate(zip(smile.tolist(), glasses.tolist(), strict=True))
    ]
    wanted = labels(rows)
    assert wanted[2:, 2].eq(-1).all()
    judge = train(images, wanted, epochs=12)
    right = (judge(images)[:, :2] > 0) == torch.stack([smile, glasses], 1)
    assert right.float().mean() > 0.9
