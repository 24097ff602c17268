"""The image tower of statistics: its pretrained network, what it sees, what is trained."""

import pytest
import timm
import torch
from torch import Tensor, nn

from osasis import losses
from osasis.networks.clip import ClipConfig, ClipEncoder, ClipTextConfig
from osasis.networks.lite import STAGES, Lite, folded, stage_widths
from osasis.networks.statistics import StatisticsVisionConfig, moments_of
from osasis.pretrain.clip import ClipTrainConfig, ClipTrainer
from tests.support.clip_case import VOCAB, encoder, portraits

VISION = StatisticsVisionConfig(network="lite0", image_size=32, levels=(0, 2), hidden=16)


def statistics_clip() -> ClipEncoder:
    torch.manual_seed(0)
    text = ClipTextConfig(context_length=12, vocab_size=len(VOCAB) + 4, width=16, heads=2, layers=1)
    return ClipEncoder(ClipConfig(embed_dim=16, vision=VISION, text=text, vocab=VOCAB)).eval()


CLIP = statistics_clip()


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
@pytest.mark.parametrize(("side", "name"), [(64, "lite0"), (50, "lite2")])
def test_folded_weights_compute_what_timm_computes(side: int, name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(f"tf_efficientnet_{name}").eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.2)
    ours = Lite(name).eval()
    ours.load_state_dict(folded(name, theirs.state_dict()))
    images = pictures(2, 3, side, side)
    maps = ours(images)
    x = theirs.bn1(theirs.conv_stem(images))
    for stage, found in zip(theirs.blocks, maps, strict=True):
        x = stage(x)
        torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)
    assert [m.shape[1] for m in maps] == stage_widths(name)
    assert len(ours(images, 2)) == 2 < STAGES


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="do not make an EfficientNet-Lite"):
        folded("lite0", {"a.weight": torch.zeros(3, 3, 1, 1)})


def test_its_maps_are_the_levels_and_gradients_reach_the_picture() -> None:
    images = pictures(2, 3, 48, 48).requires_grad_()
    assert [tuple(m.shape) for m in CLIP.features(images)] == [(2, 16, 16, 16), (2, 40, 4, 4)]
    joint, statistics = CLIP.encode_image(images), CLIP.statistics(images)
    assert joint.shape == (2, 16)
    assert statistics.shape == (2, 2 * (3 + 16 + 40))
    for embedded in (joint, statistics):
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))
        (gradient,) = torch.autograd.grad(embedded[:, 0].sum(), images)
        assert gradient.abs().sum() > 0
    torch.testing.assert_close(CLIP.statistics(images, CLIP.features(images)), statistics)


def test_other_towers_have_no_statistics() -> None:
    assert not encoder().config.has_statistics
    with pytest.raises(TypeError, match="no statistics"):
        encoder().statistics(pictures(1, 3, 32, 32))


def test_training_moves_the_projection_and_never_the_pretrained_network() -> None:
    network = statistics_clip()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    config = ClipTrainConfig(
        steps=3, batch_size=8, warmup_steps=1, variants=1, precision="float32", weight_decay=0.1, view_size=24
    )
    trainer = ClipTrainer(network, *portraits(), config)
    for _ in range(3):
        trainer.step()
    after = trainer.averaged.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert not any("visual.network" in name for name in moved)
    assert {"model.visual.project.1.weight", "model.visual.squeeze.weight", "model.token_embedding.weight"} <= moved


# --- the terms on what it sees


def shuffled(images: Tensor) -> Tensor:
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(2))
    return images.flatten(2)[..., order].view_as(images)


def test_moments_and_colours_forget_where_things_are() -> None:
    style, directions = pictures(1, 3, 8, 8), nn.functional.normalize(pictures(16, 3), dim=1)
    assert losses.colors(shuffled(style), style, directions) < 1e-3
    assert losses.moments([shuffled(style)], [style]) < 1e-3
    other = 0.5 * style.flip(1) + 0.3
    assert losses.colors(other, style, directions) > 1e-2
    assert losses.moments([other], [style]) > 1e-2
    mean, deviation = moments_of(style)
    torch.testing.assert_close(mean, style.mean((2, 3)))
    torch.testing.assert_close(deviation, style.std((2, 3), correction=0), rtol=1e-4, atol=1e-5)


def test_self_similarity_and_edges_forget_what_things_look_like() -> None:
    features, turn = pictures(1, 4, 6, 6), torch.linalg.qr(pictures(4, 4)).Q
    turned = torch.einsum("dc,bchw->bdhw", turn, features)
    assert losses.self_similarity([turned], [features]) < 1e-10
    assert losses.self_similarity([shuffled(features)], [features]) > 1e-2
    photo = pictures(1, 3, 12, 12)
    assert losses.edges(0.4 * photo + 0.2, photo) < 1e-6
    assert losses.edges(-photo, photo) > 1.9
    both = [torch.cat([shuffled(features), features])], [features.expand(2, -1, -1, -1)]
    gap = losses.self_similarity(*both)
    torch.testing.assert_close(losses.self_similarity(*both, margin=0.01), gap - 0.005)  # of the one that has a gap
    assert losses.self_similarity(*both, margin=1.0) == 0
    large = pictures(1, 2, 64, 64)
    assert losses.self_similarity([large], [large]) == 0  # of pooled maps: all pairs of 4,096 places would not fit
