"""Full-size output: what the guided filter keeps, and how a square returns to its photograph."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from osasis.errors import NotFinite
from osasis.full_size import Size, full_size, scaled, texture_of
from osasis.image import FitMode, decode_image, encode_image, fit, to_tensor
from osasis.imaging.encode import EXTENSIONS, FileFormat
from osasis.metrics import gradient_correlation
from osasis.upsampling import Detail, Upsampler, band_deviations, color_maps, match_bands, octaves

PORTRAIT = Path("samples/portraits/us03834cda.jpg")


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    return decode_image(PORTRAIT.read_bytes())


def _stretched(portrait: Image.Image, width: int, height: int) -> Image.Image:
    return portrait.resize((width, height), Image.Resampling.LANCZOS)


def _repainted(square: Tensor) -> Tensor:
    """Other colours, darker to the right."""
    return (square.flip(0) * torch.linspace(1, 0.5, square.shape[2])).clamp(-1, 1)


def _laid_back(photo: Image.Image, repaint: bool = True, mode: FitMode = "crop", **options: object) -> Image.Image:
    square, transform = fit(photo, 64, mode)
    small = to_tensor(square)
    return full_size(photo, small, _repainted(small) if repaint else small, transform, **options)  # type: ignore[arg-type]


def _difference(a: Image.Image, b: Image.Image) -> int:
    """Largest difference of a byte."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max())


@pytest.mark.parametrize("mode", ["crop", "pad", "squash"])
@pytest.mark.parametrize("detail", ["guided", "residual"])
def test_a_stylization_that_changed_nothing_gives_the_photograph(
    portrait: Image.Image, mode: FitMode, detail: Detail
) -> None:
    photo = _stretched(portrait, 301, 203)
    assert _difference(_laid_back(photo, repaint=False, mode=mode, detail=detail), photo) <= 1


def test_a_change_of_colours_that_one_map_describes_is_found_exactly(portrait: Image.Image) -> None:
    large = to_tensor(portrait)
    small = to_tensor(fit(portrait, 64)[0])
    factors = torch.tensor([[0.5, 0.2, 0.0], [0.1, 0.6, 0.1], [0.0, -0.3, 0.8]])

    def paint(image: Tensor) -> Tensor:
        return torch.einsum("oi,ihw->ohw", factors, image) + 0.1

    result = Upsampler(small, paint(small), (256, 256))(large)
    torch.testing.assert_close(result, paint(large), atol=2e-3, rtol=0)


def test_the_photographs_edges_stay_which_enlargement_alone_would_blur(portrait: Image.Image) -> None:
    edges = {}
    for detail in ("guided", "residual", "none"):
        result = to_tensor(_laid_back(portrait, detail=detail))
        edges[detail] = gradient_correlation(to_tensor(portrait)[None], result[None]).item()
    assert edges["guided"] > 0.95
    assert edges["residual"] > 0.95
    assert edges["none"] < 0.92


def test_residual_gives_at_the_bases_own_size_most_of_what_the_base_painted(portrait: Image.Image) -> None:
    square, transform = fit(portrait, 64)
    small = to_tensor(square)
    strokes = small + 0.2 * torch.sin(torch.arange(64.0) * 2)  # no colour map of the photograph makes these
    wanted = strokes.clamp(-1, 1)
    missed = {
        detail: (to_tensor(full_size(square, small, wanted, transform, detail)) - wanted).square().mean().sqrt()
        for detail in ("guided", "residual")
    }
    assert missed["residual"] < 0.3 * missed["guided"]


def test_strokes_and_texture_come_with_the_styles_strength(portrait: Image.Image) -> None:
    square, transform = fit(portrait, 64)
    small = to_tensor(square)
    painted = (small + 0.2 * torch.sin(torch.arange(64.0) * 2)).clamp(-1, 1)
    texture = ((0.3, 0.3, 0.3), (0.2, 0.2, 0.2))

    def at(detail: Detail, strength: float) -> torch.Tensor:
        return to_tensor(full_size(portrait, small, painted, transform, detail, texture, strength))

    guided, whole, half = at("guided", 1), at("residual", 1), at("residual", 0.5)
    assert torch.equal(at("residual", 0), guided)
    inside = ((guided.abs() < 0.9) & (whole.abs() < 0.9)).all(0)  # where nothing is clamped
    assert ((guided + whole) / 2 - half)[:, inside].abs().max() < 0.02


@pytest.mark.parametrize("mode", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(640, 200), (77, 300), (8, 900), (33, 8), (64, 64), (9, 9)])
def test_any_size_and_aspect_keeps_its_size(portrait: Image.Image, size: tuple[int, int], mode: FitMode) -> None:
    photo = _stretched(portrait, *size)
    for detail in ("guided", "residual", "none"):
        assert _laid_back(photo, mode=mode, detail=detail, texture=((0.5, 0.5, 0.5),) * 3).size == size


def test_outside_of_the_square_every_byte_is_the_photographs(portrait: Image.Image) -> None:
    photo = _stretched(portrait, 500, 300)
    result, before = np.asarray(_laid_back(photo)), np.asarray(photo)
    np.testing.assert_array_equal(result[:, :100], before[:, :100])
    np.testing.assert_array_equal(result[:, 400:], before[:, 400:])
    assert np.abs(result[:, 150:350].astype(int) - before[:, 150:350]).mean() > 10


def test_the_seam_is_a_slope_and_the_pictures_own_edges_are_none() -> None:
    photo = Image.new("RGB", (400, 200), (128, 128, 128))
    square, transform = fit(photo, 64)
    small = to_tensor(square)
    result = np.asarray(full_size(photo, small, small + 0.5, transform)).astype(int)[..., 0]
    steps = np.abs(np.diff(result, axis=1))
    assert steps.max() < 20
    assert (steps.sum(1) == 2 * (192 - 128)).all()
    assert (result[:, 200] == 192).all()  # up to the upper and lower edge


def test_tiles_are_parts_of_the_whole(portrait: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = _stretched(portrait, 333, 211)
    for detail in ("guided", "residual", "none"):
        whole = _laid_back(photo, detail=detail)
        with monkeypatch.context() as patch:
            patch.setattr("osasis.full_size._TILE", 50)
            assert _difference(_laid_back(photo, detail=detail), whole) == 0


def test_a_grey_photograph_takes_on_colour(portrait: Image.Image) -> None:
    grey = portrait.convert("L").convert("RGB")
    small = to_tensor(fit(grey, 64)[0])
    tinted = (small * torch.tensor([1.0, 0.8, 0.5])[:, None, None] + 0.1).clamp(-1, 1)
    result = Upsampler(small, tinted, (256, 256))(to_tensor(grey))
    expected = to_tensor(grey) * torch.tensor([1.0, 0.8, 0.5])[:, None, None] + 0.1
    assert (result - expected).abs().mean() < 0.01
    assert torch.isfinite(color_maps(torch.zeros(3, 64, 64), tinted)).all()


def test_bands_take_on_the_references_contrast(portrait: Image.Image) -> None:
    image = to_tensor(portrait)
    wanted = 2 * band_deviations(image, 2)
    matched = band_deviations(match_bands(image, 2, wanted), 2)
    torch.testing.assert_close(matched, wanted, rtol=0.1, atol=1e-3)
    torch.testing.assert_close(match_bands(image, 2, band_deviations(image, 2)), image, atol=1e-5, rtol=0)


def test_a_reference_tells_of_the_octaves_that_it_has(portrait: Image.Image) -> None:
    assert np.shape(texture_of(portrait, 64)) == (2, 3)
    assert texture_of(portrait.resize((100, 90)), 64) == ()
    assert [octaves(64, side) for side in (63, 64, 127, 128, 512)] == [0, 0, 0, 1, 3]


@pytest.mark.parametrize(
    ("size", "expected"), [("original", (300, 200)), (150, (150, 100)), (1, (1, 1)), (999, (300, 200))]
)
def test_the_longer_side_is_what_was_asked_and_nothing_is_enlarged(size: Size, expected: tuple[int, int]) -> None:
    assert scaled(Image.new("RGB", (300, 200)), size).size == expected


def test_a_scaled_photograph_takes_the_region_with_it(portrait: Image.Image) -> None:
    photo = _stretched(portrait, 600, 400)
    square, transform = fit(photo, 64)
    small = to_tensor(square)
    at_once = full_size(scaled(photo, 300), small, _repainted(small), transform)
    later = _laid_back(photo).resize((300, 200), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(at_once).astype(int) - np.asarray(later)).mean() < 2


def test_a_picture_that_is_not_finite_is_refused(portrait: Image.Image) -> None:
    square, transform = fit(portrait, 64)
    small = to_tensor(square)
    with pytest.raises(NotFinite):
        full_size(portrait, small, small * float("nan"), transform)


@pytest.mark.parametrize(("file_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_every_format_says_srgb_and_is_the_same_every_time(
    portrait: Image.Image, file_format: FileFormat, kind: str
) -> None:
    portrait = portrait.copy()
    portrait.info = {"icc_profile": b"of another picture", "exif": b"Exif\0\0", "comment": "private"}
    data = encode_image(portrait, file_format)
    assert data == encode_image(portrait.copy(), file_format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind
        assert not image.getexif()
        assert "comment" not in image.info
        if file_format == "png":
            assert image.info["srgb"] == 0
        else:
            assert "sRGB" in ImageCms.getProfileDescription(io.BytesIO(image.info["icc_profile"]))  # type: ignore[arg-type]
    assert _difference(decode_image(data), portrait) <= (0 if file_format == "png" else 60)
    assert EXTENSIONS[file_format].startswith(".")


def test_quality_decides_the_size_of_the_file(portrait: Image.Image) -> None:
    for file_format in ("jpeg", "webp"):
        assert len(encode_image(portrait, file_format, 30)) < len(encode_image(portrait, file_format, 95))


def test_a_format_that_cannot_hold_the_picture_says_so() -> None:
    with pytest.raises(ValueError, match="webp holds at most 16383"):
        encode_image(Image.new("RGB", (16_384, 8)), "webp")


_PEAK = """
import resource, sys
from PIL import Image, ImageCms
from osasis.full_size import full_size
from osasis.image import fit, to_tensor
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
side = int(sys.argv[1])
photo = Image.linear_gradient("L").resize((side, side)).convert("RGB")
square, transform = fit(photo, 64)
small = to_tensor(square)
before = peak()
full_size(photo, small, small.flip(0), transform, detail="residual")
print(peak() - before)
"""


def test_memory_is_that_of_one_more_picture() -> None:
    """16 megapixels: 64 MB as Pillow holds them; the maps of the whole would take 770 MB."""
    run = subprocess.run([sys.executable, "-c", _PEAK, "4000"], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 64 + 200
