"""Image intake: every mode comes out right, everything else is refused with a stable reason."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from osasis.errors import ImageRejected, NotFinite
from osasis.image import FitTransform, decode_image, encode_png, fit, to_image, to_tensor
from tests.support.hostile import bomb, encoded, hostile_files, picture, rotated_jpeg

HOSTILE = hostile_files()
KINDS = {"empty", "not-an-image", "unsupported", "truncated", "damaged", "too-large", "too-small", "too-costly"}


def pixels(name: str) -> np.ndarray:
    """[H, W, 3] int of a decoded hostile file."""
    return np.asarray(decode_image(HOSTILE[name][0])).astype(int)


@pytest.mark.parametrize("name", [n for n, (_, kind) in HOSTILE.items() if kind is None])
def test_every_usable_file_is_decoded_and_fitted(name: str) -> None:
    image = decode_image(HOSTILE[name][0])
    square, transform = fit(image, 16)
    assert image.mode == square.mode == "RGB"
    assert square.size == (16, 16)
    assert (transform.original_width, transform.original_height) == image.size


@pytest.mark.parametrize("name", [n for n, (_, kind) in HOSTILE.items() if kind is not None])
def test_the_rest_is_refused_with_its_kind_and_a_repeatable_message(name: str) -> None:
    messages = []
    for _ in range(2):
        with pytest.raises(ImageRejected) as caught:
            decode_image(HOSTILE[name][0])
        assert caught.value.kind == HOSTILE[name][1]
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "0x" not in messages[0]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    assert np.array_equal(pixels("deep.png")[0, :, 0], np.linspace(0, 255, 32).round())
    assert pixels("deep-rgb.png")[0, 0].tolist() == [255, 128, 0]


def test_transparency_is_laid_on_white() -> None:
    assert pixels("rgba.png").min() == 255
    assert pixels("palette.png").min() == 255


def test_half_transparent_grey() -> None:
    grey = Image.merge("LA", (Image.new("L", (8, 8), 0), Image.new("L", (8, 8), 128)))
    assert np.asarray(decode_image(encoded(grey, "PNG")))[0, 0].tolist() == [127] * 3


def test_cmyk_keeps_its_colours() -> None:
    assert np.abs(pixels("cmyk.jpg") - np.asarray(picture()).astype(int)).mean() < 3


def test_animations_give_the_first_frame() -> None:
    assert np.abs(pixels("animated.gif")[16, 16] - [255, 0, 0]).max() < 4
    assert np.abs(pixels("animated.webp")[16, 16] - [255, 0, 0]).max() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    upright = picture()
    stored = upright.transpose(Image.Transpose[turn[orientation]]) if orientation in turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encoded(stored, "PNG", exif=exif))
    assert image.size == upright.size
    assert np.array_equal(np.asarray(image), np.asarray(upright))
    assert fit(image, 8)[1].orientation == orientation


def test_rotated_jpeg_is_upright() -> None:
    assert decode_image(rotated_jpeg()).size == (40, 48)


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    tracemalloc.start()
    with pytest.raises(ImageRejected, match="400000000"):
        decode_image(bomb())
    with pytest.raises(ImageRejected, match="9000×9000 is more than 64000000 pixels"):
        decode_image(bomb(9000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_the_limit_can_be_set() -> None:
    data = encoded(picture(48, 40), "PNG")
    assert decode_image(data, max_pixels=48 * 40).size == (48, 40)
    with pytest.raises(ImageRejected) as caught:
        decode_image(data, max_pixels=48 * 40 - 1)
    assert caught.value.kind == "too-large"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(HOSTILE)), st.data())
def test_a_damaged_byte_never_raises_anything_else(name: str, data: st.DataObject) -> None:
    damaged = bytearray(HOSTILE[name][0])
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(damaged), max_pixels=10_000)
    except ImageRejected as rejected:
        assert rejected.kind in KINDS  # noqa: PT017  raising is one of two right outcomes
    else:
        assert image.mode == "RGB"


@given(st.integers(8, 200), st.integers(8, 200), st.sampled_from([8, 16, 33]))
def test_crop_takes_the_centred_square(width: int, height: int, size: int) -> None:
    square, transform = fit(picture(width, height), size, "crop")
    left, top, right, bottom = transform.box
    assert square.size == (size, size)
    assert right - left == bottom - top == min(width, height)
    assert abs(left - (width - right)) <= 1
    assert abs(top - (height - bottom)) <= 1


@given(st.integers(8, 200), st.integers(8, 200), st.sampled_from([8, 16, 33]))
def test_pad_keeps_the_whole_picture_in_proportion(width: int, height: int, size: int) -> None:
    square, transform = fit(picture(width, height), size, "pad")
    left, top, right, bottom = transform.target
    assert square.size == (size, size)
    assert transform.box == (0, 0, width, height)
    assert max(right - left, bottom - top) == size
    assert abs((right - left) / width - (bottom - top) / height) <= 1 / min(width, height)


def test_pad_reflects_and_the_middle_is_the_picture() -> None:
    wide = picture(64, 16)
    square, transform = fit(wide, 64, "pad")
    rows = np.asarray(square)
    assert transform.target == (0, 24, 64, 40)
    assert np.array_equal(rows[24:40], np.asarray(wide))
    assert np.array_equal(rows[23], rows[25])


def test_transform_survives_json() -> None:
    _, transform = fit(picture(), 16, "pad")
    assert FitTransform.model_validate_json(transform.model_dump_json()) == transform


def test_resizing_is_antialiased() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    square, _ = fit(stripes.convert("RGB"), 16)
    assert np.abs(np.asarray(square).astype(int) - 127).max() < 12


def test_pixels_survive_tensor_and_png() -> None:
    image = picture(24, 24)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 24, 24)
    assert tensor.abs().max() <= 1
    assert np.array_equal(np.asarray(to_image(tensor)), np.asarray(image))
    assert np.array_equal(np.asarray(decode_image(encode_png(image))), np.asarray(image))
    assert encode_png(to_image(tensor)) == encode_png(image)


def test_out_of_range_is_clamped_and_nan_refused() -> None:
    assert np.asarray(to_image(torch.full((3, 4, 4), 7.0))).min() == 255
    with pytest.raises(NotFinite):
        to_image(torch.full((3, 4, 4), float("nan")))
