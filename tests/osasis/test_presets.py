"""Each difference of release and paper is a setting, and does what it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Resize

from osasis.base import Base, load_base, load_spec, save_base
from osasis.checkpoint import load_style
from osasis.errors import BaseError
from osasis.image import fit
from osasis.networks.clip import ClipEncoder
from osasis.networks.perceptual import Lpips, PerceptualConfig
from osasis.pretrain.recipe import PARTS, RECIPES, Recipe
from osasis.settings import ContentConfig, StylePhotoConfig, TrainConfig, train_config
from osasis.style_photo import denoised_counterparts
from osasis.style_training import StyleTraining, missing_parts, training_content
from tests.support.tiny import SIZE, SPEC, make_tiny_base

DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "spn_style": ("one", "lambda"), "spn": ("time", "plain"), "matched_t0": (False, True),
    "clip_reconstruction": ("cosine", "l1"), "clip_input": ("nearest", "proper"),
    "clip_embeddings": ("raw", "unit"), "style_condition": ("photo", "style"), "clamp": (True, False),
    "dropout": (True, False), "fit": ("squash", "crop"),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")))


def picture(seed: int = 0, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_both_presets_set_every_difference() -> None:
    official, paper = train_config("official"), train_config("paper")
    for name, (released, printed) in DIFFERENCES.items():
        assert (getattr(official, name), getattr(paper, name)) == (released, printed)
        assert TrainConfig.model_fields[name].description
    assert (official.style_photo.matched_t0, paper.style_photo.matched_t0) == (False, True)
    assert official == TrainConfig()


@pytest.mark.parametrize("name", sorted(DIFFERENCES.keys() - {"fit", "dropout"}))
def test_each_difference_changes_the_training(base: Base, name: str) -> None:
    """On a larger picture than CLIP's, with dropout off: every other setting alone makes other losses."""
    losses = []
    for value in DIFFERENCES[name]:
        changes = {"iterations": 1, "dropout": False, "t0_ratio": 0.6, name: value}
        config = train_config("official", base.spec.train_defaults, changes)
        losses.append(next(StyleTraining(base, picture(), config).run()))
    assert losses[0] != losses[1]


def test_a_style_remembers_its_preset(base: Base, tmp_path: Path) -> None:
    config = train_config("paper", base.spec.train_defaults, {"iterations": 1})
    training = StyleTraining(base, picture(), config)
    list(training.run())
    (tmp_path / "style.safetensors").write_bytes(training.checkpoint("s", "paper"))
    style = load_style(tmp_path / "style.safetensors", base)
    assert style.header.preset == "paper"
    assert style.config == config


def test_a_reference_is_squashed_as_the_release_does_it() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))
    square, cut = fit(image, 16, "squash")
    assert np.array_equal(square, Resize((16, 16))(image))
    assert (cut.box, cut.target) == ((0, 0, 30, 40), (0, 0, 16, 16))


def test_the_style_photo_is_denoised_from_where_it_was_noised_to(base: Base) -> None:
    for matched, steps in ((False, 5), (True, 6)):
        config = StylePhotoConfig(steps=10, candidates=1, matched_t0=matched)
        calls: list[float] = []

        def note(_: Any, inputs: Any, __: Any, calls: list[float] = calls) -> None:
            calls.append(inputs[1][0].item())

        hook = base.photo_prior.register_forward_hook(note)
        denoised_counterparts(base, picture(), config, seed=0)
        hook.remove()
        assert len(calls) == steps
        assert calls[0] == (555 if matched else 444)  # of the timesteps 0, 111 … 999


def test_what_clip_is_fed() -> None:
    assert SPEC.clip is not None
    half = (0.5, 0.25, 0.125)
    clip = ClipEncoder(SPEC.clip.model_copy(update={"mean": half, "std": half})).eval()
    images = picture()
    nearest = images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(clip._fed(images, "nearest"), nearest)
    smooth = clip._fed(images)
    assert smooth.shape == nearest.shape
    assert not torch.allclose(smooth, nearest, atol=0.1)
    flat = clip._fed(torch.zeros(1, 3, 32, 32))[0, :, 0, 0]
    assert torch.allclose(flat, torch.tensor([(0.5 - m) / m for m in half]))
    raw = clip.encode_image(images, unit=False)
    assert torch.allclose(torch.nn.functional.normalize(raw, dim=-1), clip.encode_image(images))
    assert not torch.allclose(raw, clip.encode_image(images))


def test_several_clips_are_averaged_each_fed_its_own_way(base: Base, tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "base")
    assert SPEC.clip is not None
    second = SPEC.clip.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)})
    torch.manual_seed(7)
    spec = load_spec(folder).model_copy(update={"more_clip": {"Other": second}})
    save_base(folder, spec, {"clip-Other": ClipEncoder(second).state_dict()})
    both = load_base(folder)
    assert both.fingerprint == base.fingerprint

    def losses(*clips: str) -> dict[str, float]:
        config = train_config("paper", base.spec.train_defaults, {"clips": clips, "weights": {"recon_l1": 0}})
        training = StyleTraining(both, picture(), config, photo=picture(1))
        finetuner = training.finetuner
        content = training.bank.content[torch.tensor([0, 1])]
        i = finetuner._decode_indices()[0]
        x = torch.cat([content.x_t0, training.reference.x_t0])
        x0, _ = finetuner.predict(x, i, content)
        targets = finetuner._targets(content)
        return {name: value.item() for name, value in finetuner.terms(x0[:-1], x0[-1:], targets).items()}

    alone, other, averaged = losses("main"), losses("Other"), losses("main", "Other")
    assert alone == losses()
    assert alone["cross_domain"] != other["cross_domain"]
    for name in ("cross_domain", "in_domain", "recon_clip"):
        assert averaged[name] == pytest.approx((alone[name] + other[name]) / 2, rel=1e-5)
    with pytest.raises(BaseError, match="has no clip-Third"):
        losses("Third")
    wanted = train_config("official", {"clips": ("main", "Third")})
    assert missing_parts(both.spec, wanted) == ["clip 'Third', named in clips"]


def test_several_perceptual_distances_are_averaged(tmp_path: Path) -> None:
    net = PerceptualConfig(kind="lpips", net="vgg")
    torch.manual_seed(7)
    folder = make_tiny_base(tmp_path / "base")
    spec = load_spec(folder).model_copy(update={"more_perceptual": {"vgg": net}})
    save_base(folder, spec, {"perceptual-vgg": Lpips("vgg").state_dict()})
    both = load_base(folder)

    def loss(*perceptuals: str) -> float:
        config = train_config("paper", spec.train_defaults, {"perceptuals": perceptuals})
        training = StyleTraining(both, picture(), config, photo=picture(1))
        x0 = picture(2)
        return training.finetuner.terms(x0, x0, training.finetuner._targets(training.bank.content[torch.tensor([0])]))[
            "recon_perceptual"
        ].item()

    main, other, averaged = loss("main"), loss("vgg"), loss("main", "vgg")
    assert main == loss()
    assert main != other
    assert averaged == pytest.approx((main + other) / 2, rel=1e-5)
    with pytest.raises(BaseError, match="has no perceptual-alex"):
        loss("alex")
    wanted = TrainConfig(perceptuals=("main", "alex"))
    assert missing_parts(both.spec, wanted) == ["perceptual 'alex', named in perceptuals"]
    assert "perceptuals" not in TrainConfig().model_dump()  # styles trained before the setting keep their identity


def test_content_is_given_or_of_the_bank_or_drawn(base: Base) -> None:
    config = train_config("official", base.spec.train_defaults)
    photos = picture(5, count=3)
    given = training_content(base, config, photos)
    assert torch.equal(given.photos, photos)
    assert len(training_content(base, config)) == 6  # the bank
    drawn = config.model_copy(update={"content": ContentConfig(source="prior", count=5)})
    assert len(training_content(base, drawn)) == 5
    assert torch.equal(training_content(base, drawn).x_t0, training_content(base, drawn).x_t0)
    named = config.model_copy(update={"content": ContentConfig(photos="somewhere")})
    with pytest.raises(ValueError, match="somewhere"):
        training_content(base, named)


def test_what_a_base_lacks_is_said_before_it_is_missed() -> None:
    bare = SPEC.model_copy(update={"latent_prior": None, "photo_prior": None, "clip": None, "perceptual": None})
    lacks = " ".join(missing_parts(bare, TrainConfig()))
    for part in ("photo_prior", "perceptual", "clip", "latent_prior"):
        assert part in lacks
    assert missing_parts(SPEC, TrainConfig()) == []


def test_settings_of_former_versions_are_read() -> None:
    assert TrainConfig.model_validate({"bf16": True}).precision == "bf16"
    assert TrainConfig.model_validate({"bf16": True, "precision": "float32"}).precision == "float32"
    base_says, style_says = {"bf16": True}, {"precision": "float32"}
    assert train_config("official", base_says, style_says).precision == "float32"
    assert train_config("official", {"precision": "float32"}, {"bf16": True}).precision == "bf16"


def test_recipes_of_former_versions_are_read() -> None:
    recipe = RECIPES["mini64"]()
    former = recipe.model_dump(mode="json")
    for now, then in (("latent_prior_training", "latent_training"), ("photo_prior_training", "photo_training")):
        former[then] = former.pop(now)
        former[then]["bf16"] = former[then].pop("precision") == "bf16"
    assert Recipe.model_validate(former) == recipe
    assert [recipe.training(part).steps for part in PARTS] == [9000, 2000, 800, 1000]
