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
from tests.golden_maker import Maker

GOLDEN = Path(__file__).parent / "golden"

LATENT = {
    "num_layers": 3, "hidden": 40, "skip_layers": [1], "time_emb_channels": 16, "num_time_layers": 3, "use_norm": False,
    "condition_bias": 0, "activation": "relu",
}  # fmt: skip
TRAINING = {
    "batch_size": 1, "n_iter": 2, "T_train_for": 10, "T_train_back": 5, "T_latent": 10, "t0_ratio": 0.4, "lr": 3e-4,
    "cross_dom": 1.5, "in_dom": 0.25, "recon_clip": 20, "recon_l1": 5, "recon_lpips": 0,
    "map_net": True, "map_time": True, "lambda_map": 0.3, "print_freq": 1, "train_img_freq": 9, "ckpt_freq": 2,
}  # fmt: skip
INFERENCE = {"T_infer_for": 20, "T_infer_back": 10, "t0_ratio": 0.6, "ref_cond_scale": [0], "lambda_spn": 0.2}
P2 = {
    "image_size": 16, "num_channels": 32, "num_res_blocks": 1, "num_heads": 4, "num_heads_upsample": -1,
    "num_head_channels": 16, "attention_resolutions": "8", "channel_mult": "1,2", "dropout": 0.0, "class_cond": False,
    "use_checkpoint": False, "use_scale_shift_norm": True, "resblock_updown": True, "use_fp16": False,
    "use_new_attention_order": False, "learn_sigma": True, "diffusion_steps": 1000, "noise_schedule": "linear",
    "timestep_respacing": "21", "use_kl": False, "predict_xstart": False, "rescale_timesteps": False,
    "rescale_learned_sigmas": False,
}  # fmt: skip

SMALL = {
    "config": {
        "image_size": 16, "model_channels": 32, "channel_mult": [1, 2], "enc_channel_mult": [1, 2, 1],
        "attention_resolutions": [8], "num_res_blocks": 2, "enc_num_res_blocks": 1, "embed_channels": 40,
        "style_channels": 24, "num_heads": 2, "enc_pool": "adaptivenonzero", "resblock_updown": True,
        "resnet_two_cond": True, "latent": LATENT,
    },
    "training": {"args": TRAINING}, "inference": INFERENCE, "p2": P2,
}  # fmt: skip
"""Two heads, two blocks, style channels that are not embed channels, an unusual latent net."""

WIDE = {
    "config": {
        "image_size": 32, "model_channels": 32, "channel_mult": [1, 2, 3], "enc_channel_mult": [1, 2, 2, 3],
        "attention_resolutions": [16, 8], "num_res_blocks": 1, "enc_num_res_blocks": 2, "embed_channels": 32,
        "style_channels": 20, "num_heads": 1, "num_head_channels": 8, "enc_pool": "adaptivenonzero",
        "resblock_updown": False, "resnet_two_cond": True,
        "latent": LATENT | {
            "num_layers": 4, "skip_layers": [1, 2, 3], "use_norm": True, "activation": "silu", "condition_bias": 1,
            "num_time_layers": 2,
        },
    },
    "training": {"args": TRAINING | {"map_time": False, "n_iter": 1, "batch_size": 2, "t0_ratio": 0.5}},
    "inference": INFERENCE | {"ref_cond_scale": [0, 2]},
    "p2": P2 | {
        "image_size": 64, "channel_mult": "", "attention_resolutions": "32,16,8", "num_head_channels": -1,
        "num_heads": 2, "num_heads_upsample": 4, "resblock_updown": False, "use_scale_shift_norm": False,
        "learn_sigma": False, "use_new_attention_order": True, "timestep_respacing": "10",
    },
}  # fmt: skip
"""Heads by width, attention at two sizes, convolutions between levels; a photo prior with everything otherwise."""

STEPS = {
    "small": {"encode": 20, "decode": 10, "sample": 5, "latent": 20},
    "wide": {"encode": 10, "decode": 20, "sample": 10, "latent": 10},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each other configuration, with its official files."""
    folders = {}
    for name, meta in {"small": SMALL, "wide": WIDE}.items():
        maker = Maker(json.loads(json.dumps(meta)), seed=len(name))
        folders[name] = maker.write(tmp_path_factory.mktemp("golden") / name, STEPS[name])
        maker.write_official(folders[name])
    return folders


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


@pytest.mark.parametrize("name", ["small", "wide"])
def test_other_configurations_are_matched(made: dict[str, Path], name: str) -> None:
    report = report_of(made[name])
    assert report.passed, report.table()
    assert not report.absent
    assert {d.file for d in report.differences if d.file.startswith("official")} == {
        "official/base_autoenc_latent/last.ckpt", "official/base_autoenc/latent.pkl", "official/base_p2.pt",
    }  # fmt: skip
    assert [d.name for d in report.of("inference.safetensors")][-1] == "stylized, official/ckpt/iter_2.pt"


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Path:
    """A folder to spoil."""
    return Path(shutil.copytree(made["small"], tmp_path / "copy"))


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


def test_the_command_prints_a_table_and_exits_with_0(made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made["small"]), "--dtype", "float64"]) == 0
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
