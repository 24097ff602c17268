"""Files of others: read as they are, refused when they hold more than data, told apart by name."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import alexnet, vgg16

from osasis.base import load_base, save_base
from osasis.errors import BaseMismatch, ForeignFile
from osasis.importers.bundle import OfficialFiles, official_levels, read_bundle
from osasis.importers.clip import read_clip
from osasis.importers.diffae import read_diffae, read_latent_stats
from osasis.importers.perceptual import read_perceptual
from osasis.importers.photo_prior import read_photo_prior
from osasis.importers.pickled import read_checkpoint
from osasis.importers.style import read_style, style_file
from osasis.networks.clip import ClipConfig, ClipEncoder
from osasis.networks.perceptual import Lpips
from tests.support.tiny import make_tiny_base


class Payload:
    """Makes a folder when it is unpickled by anything that runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def official(golden_folders: dict[str, Path]) -> Path:
    return golden_folders["small"] / "official"


def given(**more: Any) -> dict[str, dict[str, Any]]:
    """What no tensor of the small folder shows."""
    latent = {"activation": "relu", "condition_bias": 0}
    return {"unet": {"num_heads": 2}, "encoder": {"num_heads": 2, "num_res_blocks": 1}, "latent_prior": latent} | more


def diffae_file(official: Path) -> Path:
    return official / "base_autoenc_latent" / "last.ckpt"


def test_the_ema_networks_are_taken_with_their_configuration(golden_folders: dict[str, Path], official: Path) -> None:
    networks = read_diffae(diffae_file(official), given=given())
    golden = load_file(golden_folders["small"] / "diffae_weights.safetensors")
    assert networks.unet.image_size == 16  # from x_T
    assert (networks.unet.channel_mult, networks.unet.num_res_blocks) == ((1, 2), 2)
    assert (networks.unet.emb_channels, networks.unet.cond_channels) == (40, 24)
    assert networks.encoder.channel_mult == (1, 2, 1)
    assert networks.latent_prior is not None
    assert networks.latent_prior.skips == (1,)
    assert (networks.latent_prior.num_time_layers, networks.latent_prior.use_norm) == (3, False)
    assert torch.equal(networks.diffae["unet.time_embed.0.weight"], golden["time_embed.time_embed.0.weight"])
    assert torch.equal(networks.diffae["encoder.out.3.bias"], golden["encoder.out.3.bias"])


def test_a_whole_bundle_is_exact(golden_folders: dict[str, Path], official: Path, tmp_path: Path) -> None:
    files = OfficialFiles(
        diffae=diffae_file(official), latent_stats=official / "base_autoenc" / "latent.pkl",
        photo_prior=official / "base_p2.pt", head_channels=16, given=given(),
    )  # fmt: skip
    spec, parts = read_bundle(files, "small")
    save_base(tmp_path / "base", spec, parts, exact=True)
    base = load_base(tmp_path / "base")
    g = load_file(golden_folders["small"] / "diffae_forward.safetensors")
    assert (base.eps(g["x"], g["t"], base.diffae.encoder(g["x"])) - g["eps"]).norm() < 1e-5 * g["eps"].norm()
    p2 = load_file(golden_folders["small"] / "p2.safetensors")
    assert (base.photo_prior(p2["x"], p2["t"]) - p2["out"]).norm() < 1e-5 * p2["out"].norm()
    assert base.spec.clip is None
    assert torch.equal(base.latent_prior[1], torch.load(official / "base_autoenc" / "latent.pkl")["conds_mean"])


@pytest.mark.parametrize(("count", "levels"), [(6, (0, 1, 2, 3)), (3, (0, 1)), (1, (0,))])
def test_the_levels_of_the_release(count: int, levels: tuple[int, ...]) -> None:
    assert official_levels(count) == levels


def test_a_style_of_another_base_is_refused(official: Path, tmp_path: Path) -> None:
    spec, parts = read_bundle(OfficialFiles(diffae=diffae_file(official), given=given()), "small")
    parts["diffae"]["encoder.out.3.bias"] = parts["diffae"]["encoder.out.3.bias"] + 1
    save_base(tmp_path / "base", spec, parts, exact=True)
    with pytest.raises(BaseMismatch, match=r"iter_2\.pt was trained on another base than small: encoder"):
        read_style(official / "ckpt" / "iter_2.pt", load_base(tmp_path / "base"))
    with pytest.raises(ForeignFile, match=r"iter_2\.pt: diffae_B: "):
        read_style(official / "ckpt" / "iter_2.pt", load_base(make_tiny_base(tmp_path / "tiny")))


def test_a_style_without_spn_adds_nothing(official: Path, tmp_path: Path) -> None:
    spec, parts = read_bundle(OfficialFiles(diffae=diffae_file(official), given=given()), "small")
    save_base(tmp_path / "base", spec, parts, exact=True)
    base = load_base(tmp_path / "base")
    content = torch.load(official / "ckpt" / "iter_2.pt")
    del content["model_map"]
    torch.save(content, tmp_path / "bare.pt")
    style = read_style(tmp_path / "bare.pt", base)
    assert style.config().spn == "plain"
    assert not style.spn(torch.rand(1, 3, 16, 16), torch.zeros(1)).any()
    assert style_file(style, base, torch.zeros(1, 3, 16, 16), "bare") == style_file(
        read_style(tmp_path / "bare.pt", base), base, torch.zeros(1, 3, 16, 16), "bare"
    )


# --- pickles


def legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def plain_pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def script(value: Any, path: Path) -> None:
    """A TorchScript archive whose object tree is the pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("m/constants.pkl", pickle.dumps((), protocol=2))


READERS: list[Callable[[Path], Any]] = [
    read_checkpoint, read_diffae, lambda path: read_latent_stats(path, 8), lambda path: read_photo_prior(path, 16),
    read_clip, read_perceptual,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, legacy, plain_pickle, script])
@pytest.mark.parametrize("read", READERS)
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, save: Callable[[Any, Path], None], read: Callable[[Path], Any]
) -> None:
    path, trap = tmp_path / "evil.ckpt", tmp_path / "run"
    save({"state_dict": {"ema_model.x": Payload(trap)}, "conds_mean": Payload(trap)}, path)
    with pytest.raises(ForeignFile, match=r"evil\.ckpt") as refusal:
        read(path)
    assert not trap.exists()
    if save is not plain_pickle:  # which is no file of torch's to begin with
        assert f"is refused: it names {os.mkdir.__module__}.mkdir" in str(refusal.value)


def test_a_style_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path, trap = tmp_path / "evil.pt", tmp_path / "run"
    torch.save({"diffae_B": {"x": torch.zeros(1)}, "optim_map": Payload(trap)}, path)
    with pytest.raises(ForeignFile, match=r"evil\.pt is refused: it names "):
        read_style(path, load_base(make_tiny_base(tmp_path / "base")))
    assert not trap.exists()


def test_lightning_containers_of_old_are_read_without_lightning(official: Path, tmp_path: Path) -> None:
    """Old checkpoints have a callback's class for a key: it is named, and stays inert."""
    from osasis.importers import pickled

    content = torch.load(diffae_file(official))
    module = "pytorch_lightning.callbacks.model_checkpoint"
    klass = type("ModelCheckpoint", (), {"__module__": module})
    fake = type(pickle)(module)
    fake.ModelCheckpoint = klass  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name in (module, "pytorch_lightning", "pytorch_lightning.callbacks"):
            patch.setitem(__import__("sys").modules, name, fake)
        torch.save(content | {"callbacks": {klass: {"best_model_score": torch.ones(())}}}, tmp_path / "old.ckpt")
    assert f"{module}.ModelCheckpoint" in pickled._LIGHTNING
    assert read_diffae(tmp_path / "old.ckpt", given=given()).unet.image_size == 16


# --- wrong files


def changed(path: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(path)
    change(content)
    torch.save(content, out)
    return out


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no EMA": (lambda c: c.update(state_dict={"model.x": torch.zeros(1)}), "no EMA weights"),
    "gap": (lambda c: c["state_dict"].pop("ema_model.middle_block.1.qkv.bias"), "middle_block.1.qkv.bias is missing"),
    "shape": (
        lambda c: c["state_dict"].update({"ema_model.out.2.weight": torch.zeros(3, 1, 3, 3)}),
        r"out.2.weight has shape \(3, 1, 3, 3\)",
    ),
    "too many": (lambda c: c["state_dict"].update({"ema_model.extra": torch.zeros(1)}), "extra is not known"),
    "not a number": (lambda c: c["state_dict"]["ema_model.out.2.bias"].fill_(torch.nan), "out.2.bias holds NaN"),
    "schedule": (lambda c: c.update(hyper_parameters={"beta_scheduler": "cosine"}), "beta_scheduler is 'cosine'"),
    "latent schedule": (lambda c: c.update(hyper_parameters={"latent_beta_scheduler": "linear"}), "latent_beta_sched"),
    "twins": (
        lambda c: c["state_dict"].update(
            {"ema_model.latent_net.layers.0.cond_layers.1.bias": torch.ones(40)}
        ),
        "stored twice and differ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_checkpoint_is_named_with_the_reason(official: Path, tmp_path: Path, what: str) -> None:
    change, reason = WRONG[what]
    path = changed(diffae_file(official), tmp_path / "wrong.ckpt", change)
    with pytest.raises(ForeignFile, match=rf"wrong\.ckpt.*{reason}"):
        read_diffae(path, given=given())


def test_files_given_for_one_another_are_told(official: Path, tmp_path: Path) -> None:
    files = {
        "diffae": diffae_file(official), "latent": official / "base_autoenc" / "latent.pkl",
        "prior": official / "base_p2.pt", "style": official / "ckpt" / "iter_2.pt",
    }  # fmt: skip
    readers = {
        "diffae": read_diffae,
        "latent": lambda path: read_latent_stats(path, 24),
        "prior": lambda path: read_photo_prior(path, 16, head_channels=16),
    }
    for reader, read in readers.items():
        for kind, path in files.items():
            if kind != reader:
                with pytest.raises(ForeignFile, match=path.name.replace(".", r"\.")):
                    read(path)  # type: ignore[operator]
    with pytest.raises(ForeignFile, match=r"latent\.pkl: conds_mean has 24 values, the network's z has 512"):
        read_latent_stats(files["latent"], 512)
    with pytest.raises(ForeignFile, match="cannot be split into heads of 48"):
        read_photo_prior(files["prior"], 16, head_channels=48)
    for damage in (b"", b"PK\3\4", files["prior"].read_bytes()[:5000]):
        (tmp_path / "damaged.pt").write_bytes(damage)
        with pytest.raises(ForeignFile, match=r"damaged\.pt"):
            read_checkpoint(tmp_path / "damaged.pt")


# --- CLIP and LPIPS


@pytest.fixture
def tiny_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipEncoder:
    """A small model in open_clip's list."""
    registry = dict(open_clip.factory._MODEL_CONFIGS)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", registry)
    sizes = {
        "embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
    }  # fmt: skip
    registry["tiny-test"] = sizes
    torch.manual_seed(0)
    return ClipEncoder(ClipConfig(name="tiny-test"))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_clip_weights_in_every_form_are_read(tiny_clip: ClipEncoder, tmp_path: Path) -> None:
    weights = tiny_clip.model.state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "open_clip.pt")
    save_file({k: v.clone() for k, v in weights.items()}, tmp_path / "clip.safetensors")
    scripted = nested(weights | {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(32)})
    torch.jit.script(scripted.half()).save(str(tmp_path / "openai.pt"))
    for name in ("open_clip.pt", "clip.safetensors", "openai.pt"):
        config, tensors = read_clip(tmp_path / name, "tiny-test")
        assert config.mean == open_clip.OPENAI_DATASET_MEAN
        assert tensors.keys() == tiny_clip.state_dict().keys()
        for key, tensor in tiny_clip.state_dict().items():
            assert torch.allclose(tensors[key].float(), tensor, rtol=1e-3, atol=1e-4)
    with pytest.raises(ForeignFile, match=r"openai\.pt: an image tower of width 64 with patches of 16"):
        read_clip(tmp_path / "openai.pt")
    with pytest.raises(ForeignFile, match=r"openai\.pt: ViT-B-32: .*shape"):
        read_clip(tmp_path / "openai.pt", "ViT-B-32")
    with pytest.raises(ForeignFile, match="open_clip has no model 'ViT-X'"):
        read_clip(tmp_path / "openai.pt", "ViT-X")


def nested(weights: dict[str, torch.Tensor]) -> nn.Module:
    """Modules that hold nothing but these weights, each under its name."""
    root = nn.Module()
    for name, tensor in weights.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_buffer(last, tensor.clone())
    return root


@pytest.mark.parametrize(("net", "build"), [("vgg", vgg16), ("alex", alexnet)])
def test_lpips_backbones_keep_the_packages_heads(net: str, build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in build().state_dict().items() if k.startswith("features.")}
    features = {k: 0.05 * torch.randn(shape) for k, shape in shapes.items()}
    torch.save(features | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    config, tensors = read_perceptual(tmp_path / "weights.pth")
    assert config.net == net
    distance = Lpips(net)
    heads = {k: v for k, v in distance.state_dict().items() if ".lin" in k}
    distance.load_state_dict(tensors)
    assert all(torch.equal(distance.state_dict()[k], v) for k, v in heads.items())
    assert heads
    a, b = torch.rand(2, 1, 3, 64, 64)
    assert distance(a, a).item() == 0
    assert distance(a, b).item() > 0
    del features[max(features)]
    torch.save(features, tmp_path / "short.pth")
    with pytest.raises(ForeignFile, match=r"short\.pth: features\..* is missing"):
        read_perceptual(tmp_path / "short.pth")


def test_config_of_the_bundle_survives_json(official: Path) -> None:
    spec, _ = read_bundle(OfficialFiles(diffae=diffae_file(official), given=given()), "small")
    assert type(spec).model_validate(json.loads(spec.model_dump_json(exclude_none=True))) == spec
