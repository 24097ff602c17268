"""Measures of pictures: known values, and that they tell style from structure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from osasis.image import decode_image, fit, to_tensor
from osasis.metrics import Judge, color_transfer, load_judge
from osasis.metrics.color_transfer import match_moments

SAMPLES = Path("samples")


def _picture(path: Path) -> Tensor:
    return to_tensor(fit(decode_image(path.read_bytes()), 64)[0])


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return torch.stack([_picture(path) for path in sorted((SAMPLES / "portraits").iterdir())])


@pytest.fixture(scope="module")
def hokusai() -> Tensor:
    return _picture(SAMPLES / "styles" / "hokusai-great-wave.jpg")[None]


def test_moments_are_the_targets(hokusai: Tensor, photos: Tensor) -> None:
    values, target = (image.permute(1, 2, 0).numpy().astype(np.float64) for image in (photos[0], hokusai[0]))
    matched = match_moments(values, target)
    np.testing.assert_allclose(matched.mean((0, 1)), target.mean((0, 1)), atol=1e-9)
    np.testing.assert_allclose(matched.std((0, 1)), target.std((0, 1)), atol=1e-9)


def test_moments_of_one_flat_colour_move_without_noise() -> None:
    target = np.random.default_rng(0).random((5, 7, 3))
    matched = match_moments(np.full((4, 4, 3), 0.3), target)
    np.testing.assert_allclose(matched, np.broadcast_to(target.mean((0, 1)), (4, 4, 3)), atol=1e-9)


def test_color_transfer_to_the_picture_itself_changes_nothing(photos: Tensor) -> None:
    torch.testing.assert_close(color_transfer(photos[:1], photos[:1]), photos[:1], atol=8e-3, rtol=0)


def test_the_photographs_have_style_distance_one_and_their_own_structure(
    judge: Judge, photos: Tensor, hokusai: Tensor
) -> None:
    measures = judge.measure(photos, photos, hokusai)
    assert measures.style == pytest.approx(1)
    assert measures.structure == pytest.approx(0, abs=1e-6)
    assert measures.edges == pytest.approx(1, abs=1e-5)


def test_the_reference_itself_has_style_distance_zero_and_another_structure(
    judge: Judge, photos: Tensor, hokusai: Tensor
) -> None:
    measures = judge.measure(photos, hokusai.expand_as(photos), hokusai)
    assert measures.style == pytest.approx(0, abs=1e-4)
    assert measures.structure > 0.15
    assert measures.edges < 0.2


def test_color_transfer_is_nearer_to_the_style_and_keeps_structure(
    judge: Judge, photos: Tensor, hokusai: Tensor
) -> None:
    measures = judge.measure(photos, color_transfer(photos, hokusai), hokusai)
    assert measures.style == pytest.approx(0.555, abs=0.02)
    assert measures.structure == pytest.approx(0.055, abs=0.003)
    assert measures.edges > 0.97


def test_style_forgets_where_things_are_and_structure_does_not(judge: Judge, photos: Tensor, hokusai: Tensor) -> None:
    mirrored = judge.measure(photos, photos.flip(3), hokusai)
    assert mirrored.style == pytest.approx(1, abs=0.05)
    assert mirrored.structure > 0.1


def test_the_network_knows_pictures(judge: Judge, photos: Tensor) -> None:
    """Weights that were assigned wrongly would still give features; they would recognize nothing."""
    suit = 834  # of ImageNet's classes
    scores = judge.network(torch.nn.functional.interpolate(photos, 240, mode="bilinear"))
    assert (scores.topk(3).indices == suit).any(1).float().mean() > 0.5
