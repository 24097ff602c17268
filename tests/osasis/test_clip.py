"""The CLIP encoder and its training."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from osasis.networks.clip import FIRST_WORD, UNKNOWN, ClipConfig, ClipEncoder, ClipVisionConfig
from osasis.pretrain import captions
from osasis.pretrain.clip import ClipTrainConfig, ClipTrainer, evaluate, rarity, value_weights
from tests.support.clip_case import VOCAB, encoder, portraits, tiny


def trainer(**changes: Any) -> ClipTrainer:
    config = {
        "steps": 40,
        "batch_size": 8,
        "warmup_steps": 2,
        "variants": 2,
        "precision": "float32",
        "weight_decay": 0.1,
    }
    return ClipTrainer(encoder(), *portraits(), ClipTrainConfig(**(config | changes)))


SHARED = encoder()


@settings(max_examples=50)
@given(st.lists(st.text(), min_size=1, max_size=3))
def test_any_text_is_tokenized(texts: list[str]) -> None:
    tokens = SHARED.tokenize(texts)
    end = len(VOCAB) + FIRST_WORD + 1
    assert tokens.shape == (len(texts), 12)
    assert ((tokens >= 0) & (tokens <= end)).all()
    assert ((tokens == end).sum(1) == 1).all()


def test_unknown_words_become_one_unknown_token() -> None:
    known, unknown = SHARED.tokenize(["A photo, of a MAN!", "a photo of a xylophone"])
    assert known[:5].tolist() == [
        len(VOCAB) + FIRST_WORD,
        *(FIRST_WORD + VOCAB.index(w) for w in ["a", "photo", "of", "a"]),
    ]
    assert unknown[5] == UNKNOWN
    assert known[5] == FIRST_WORD + VOCAB.index("man")


def test_embeddings_have_unit_length_and_gradients_reach_the_image() -> None:
    images = torch.rand(2, 3, 48, 48, requires_grad=True)
    embedded = SHARED.encode_image(images * 2 - 1)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))
    embedded[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    torch.testing.assert_close(SHARED.encode_text(["a man", "a lady"]).norm(dim=1), torch.ones(2))


def test_larger_images_are_read_by_nearest_neighbour() -> None:
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    doubled = images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(SHARED.encode_image(doubled, feed="nearest"), SHARED.encode_image(images))


def test_mean_and_std_apply_to_unit_range() -> None:
    plain, fed = encoder(), encoder(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(fed.encode_image(images), plain.encode_image(images))


def test_feature_maps_go_from_fine_to_coarse() -> None:
    maps = SHARED.features(torch.rand(2, 3, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4), (2, 128, 2, 2)]


def test_a_vit_has_no_feature_maps() -> None:
    vit = encoder(vision=ClipVisionConfig(layers=1, width=16, head_width=8, image_size=32))
    with pytest.raises(TypeError, match="image tower of convolutions"):
        vit.features(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "no-such-model"},
        {"name": "RN50", "embed_dim": 16},
        {"name": "RN50", "mean": (0.5, 0.5, 0.5)},
        {**tiny().model_dump(), "vocab": VOCAB[1:]},
        {**tiny().model_dump(), "vocab": (VOCAB[1], *VOCAB[1:])},
    ],
)
def test_inconsistent_configurations_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClipConfig(**fields)


def test_models_that_would_download_are_refused() -> None:
    with pytest.raises(ValueError, match="choose another"):
        ClipEncoder(ClipConfig(name="ViT-B-16-SigLIP"))
    with pytest.raises(ValueError, match="choose another"):
        ClipEncoder(ClipConfig(name="roberta-ViT-B-32"))


def test_a_configuration_survives_json() -> None:
    assert ClipConfig.model_validate_json(tiny().model_dump_json()) == tiny()


def test_a_resumed_run_continues_bit_for_bit() -> None:
    straight, first, resumed = trainer(), trainer(), trainer(seed=0)
    expected = [straight.step() for _ in range(4)]
    seen = [first.step() for _ in range(2)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert seen + [resumed.step() for _ in range(2)] == expected
    for name, value in straight.averaged.state_dict().items():
        assert torch.equal(value, resumed.averaged.state_dict()[name]), name


def test_workers_draw_different_batches() -> None:
    mine, other = trainer(), trainer()
    assert mine.step(rank=0, world=2)["loss"] != other.step(rank=1, world=2)["loss"]


def test_the_loss_module_may_be_wrapped() -> None:
    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *batch: torch.Tensor) -> torch.Tensor:
            return self.module(*batch)

    config = ClipTrainConfig(steps=2, batch_size=8, variants=0, precision="float32")
    plain = ClipTrainer(encoder(), *portraits(), config)
    wrapped = ClipTrainer(encoder(), *portraits(), config, wrap=Wrapped)
    assert [plain.step(), plain.step()] == [wrapped.step(), wrapped.step()]
    assert plain.state_dict().keys() == wrapped.state_dict().keys()


def test_training_learns_a_tiny_set() -> None:
    run = trainer(steps=60, learning_rate=3e-3, variants=0, word_dropout=0.0, ema=0.9)
    losses = [run.step()["loss"] for _ in range(60)]
    assert np.mean(losses[-8:]) < 0.85 * np.mean(losses[:8])
    figures = evaluate(run.averaged, *portraits())
    assert figures["person"] == 1.0
    assert figures["person/majority"] == 0.5


def test_figures_leave_unknown_labels_out() -> None:
    images, rows = portraits()
    network = encoder()
    figures = evaluate(network, images, rows)
    assert "hair_color" not in figures
    assert figures["beard/majority"] == 1.0
    assert figures["retrieval/r5/chance"] == 5 / 8
    assert {"medium", "medium/balanced", "medium/majority"} <= figures.keys()
    assert not network.training


def test_rare_rows_weigh_more() -> None:
    rows = [{"beard": "none"}] * 9 + [{"beard": "beard"}]
    weights = rarity(rows)
    assert weights[9] == 10
    torch.testing.assert_close(weights[:9], torch.full((9,), 10 / 9))


def test_balanced_details_give_every_value_of_an_attribute_the_same_say() -> None:
    rows = [{"beard": "none"}] * 9 + [{"beard": "beard"}]
    sizes = [len(values) for values in captions.CONTRASTED.values()]
    attributes = list(captions.CONTRASTED)
    balanced = value_weights(rows, torch.ones(10), 1.0).split(sizes)[attributes.index("beard")]
    beard, mustache, none = (captions.CONTRASTED["beard"].index(value) for value in ("beard", "mustache", "none"))
    assert balanced[beard] * 1 == pytest.approx(balanced[none].item() * 9)
    assert (balanced[beard] + 9 * balanced[none]).item() == pytest.approx(10)  # one on average over the images
    assert balanced[mustache].isfinite()
    assert torch.equal(value_weights(rows, torch.ones(10), 0.0), torch.ones(sum(sizes)))
    # Drawn nine times as often, the rare value needs no further weight.
    evened = value_weights(rows, torch.tensor([1.0] * 9 + [9.0]), 1.0).split(sizes)[attributes.index("beard")]
    torch.testing.assert_close(evened[beard], evened[none])


def test_images_without_labels_are_refused() -> None:
    images, rows = portraits()
    with pytest.raises(ValueError, match="8 images, but 7 rows"):
        ClipTrainer(encoder(), images, rows[1:], ClipTrainConfig(steps=1, batch_size=8))
