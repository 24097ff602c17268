"""The release's numbers, and those of other configurations restated independently: ours must match all of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from osasis.verify import FILES, GoldenFolder, verify
from osasis.verify.__main__ import main

GOLDEN = Path(__file__).parents[1] / "golden"


def report_of(folder: Path) -> Any:
    return verify(GoldenFolder(folder, torch.device("cpu"), torch.float32), "float32", 1e-4)


def test_the_release_is_matched() -> None:
    report = report_of(GOLDEN)
    assert report.passed, report.table()
    assert {d.file for d in report.differences} == {*FILES, "meta.json"} - {
        "diffae_weights.safetensors",
        "p2_weights.safetensors",
    }
    assert len(report.differences) > 100
    assert not report.notes


@pytest.mark.parametrize("name", ["small", "wide", "large"])
def test_other_configurations_are_matched(golden_folders: dict[str, Path], name: str) -> None:
    report = report_of(golden_folders[name])
    assert report.passed, report.table()
    assert not report.absent
    assert {d.file for d in report.differences if d.file.startswith("official")} == {
        "official/base_autoenc_latent/last.ckpt", "official/base_autoenc/latent.pkl", "official/base_p2.pt",
    }  # fmt: skip
    assert [d.name for d in report.of("inference.safetensors")][-1] == "stylized"


@pytest.fixture
def copy(golden_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder to spoil."""
    return Path(shutil.copytree(golden_folders["small"], tmp_path / "copy"))


def change_tensor(path: Path, name: str, value: torch.Tensor | None = None) -> None:
    tensors = load_file(path)
    tensors[name] = value if value is not None else tensors[name] * 1.01
    save_file(tensors, path)


def change_meta(folder: Path, *keys: str, value: object) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    table = meta
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value
    (folder / "meta.json").write_text(json.dumps(meta))


def test_the_command_prints_a_table_and_exits_with_0(
    golden_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(golden_folders["small"]), "--dtype", "float64"]) == 0
    printed = capsys.readouterr().out
    assert "samplers.safetensors" in printed
    assert "official/base_autoenc_latent/last.ckpt" in printed
    assert "all within 0.0001" in printed


@pytest.mark.parametrize(
    ("file", "weight"),
    [("diffae_weights", "output_blocks.1.0.cond_emb_layers.1.weight"), ("p2_weights", "middle_block.1.qkv.weight")],
)
def test_a_disturbed_weight_is_found(copy: Path, file: str, weight: str, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensor(copy / f"{file}.safetensors", weight)
    assert main([str(copy)]) == 1
    printed = capsys.readouterr()
    assert "past tolerance" in printed.err
    assert "PAST TOLERANCE" in printed.out
    assert weight in printed.out  # the official file has the undisturbed one


def test_a_number_that_is_not_one_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensor(copy / "p2.safetensors", "x_after_0", torch.full((1, 3, 16, 16), torch.nan))
    assert main([str(copy)]) == 1
    assert "x_after_0: inf" in capsys.readouterr().err


def test_what_cannot_be_computed_is_refused_by_name(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensor(copy / "samplers.safetensors", "sideways7_step1", torch.zeros(1))
    assert main([str(copy)]) == 2
    assert "samplers.safetensors: sideways7_step1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("config", "enc_pool"), "depthconv"),
        (("config", "latent", "activation"), "gelu"),
        (("config", "dropout_during_generation"), 0.1),
        (("training", "args", "recon_lpips"), 10),
        (("p2", "class_cond"), True),
        (("p2", "noise_schedule"), "sigmoid"),
        (("inference", "model"), "../elsewhere.pt"),
    ],
)
def test_settings_that_cannot_be_computed_are_refused_by_name(
    copy: Path, keys: tuple[str, ...], value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    change_meta(copy, *keys, value=value)
    assert main([str(copy)]) == 2
    assert keys[-1] in capsys.readouterr().err


def test_unreadable_folders_exit_with_2(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path)]) == 2
    assert main([str(copy), "--device", "abacus"]) == 2
    (copy / "more.safetensors").write_bytes((copy / "spn.safetensors").read_bytes())
    assert main([str(copy)]) == 2
    (copy / "more.safetensors").unlink()
    (copy / "spn.safetensors").unlink()
    (copy / "p2.safetensors").unlink()
    assert main([str(copy)]) == 2
    (copy / "meta.json").write_text("{")
    assert main([str(copy)]) == 2
    errors = capsys.readouterr().err
    for expected in (
        "nowhere is not a folder",
        "no meta.json",
        "abacus",
        "more.safetensors",
        "missing: spn.safetensors,",
    ):
        assert expected in errors
    assert "not valid JSON" in errors
