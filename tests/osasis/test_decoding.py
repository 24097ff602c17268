"""Decoding against others: TIFF as tifffile writes it, colours as Little CMS converts them."""

import io
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from osasis.image import DECODER, decode_image, encode_png, upright_rgb
from osasis.imaging.profiles import ADOBE_RGB, DISPLAY_P3, gamma_curve, matrix_profile, srgb_curve
from tests.support.hostile_pictures import P3_PROFILE, flat, gradient, saved

RGB = gradient(40)
GREY = RGB[..., :1].repeat(3, -1)


def written(pixels: np.ndarray, photometric: str, **options: object) -> np.ndarray:
    """[H, W, 3] int of what the decoder makes of a file that tifffile wrote."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric=photometric, metadata=None, **options)
    return np.asarray(decode_image(buffer.getvalue())).astype(int)


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
def test_tiff_comes_out_as_it_was_written(deep: bool, order: str) -> None:
    rgb = RGB.astype(np.uint16) * 257 if deep else RGB
    top = np.iinfo(rgb.dtype).max
    for compression, tile in product((None, "zlib", "lzw", "packbits"), (None, (16, 16))):
        how = {"byteorder": order, "compression": compression, "tile": tile}
        planes = np.moveaxis(rgb, -1, 0).copy()
        opaque = np.full_like(planes[:1], top)
        assert np.array_equal(written(rgb, "rgb", **how), RGB), how
        assert np.array_equal(written(planes, "rgb", planarconfig="separate", **how), RGB), how
        assert np.array_equal(
            written(
                np.concatenate([planes, opaque]), "rgb", planarconfig="separate", extrasamples=["unassalpha"], **how
            ),
            RGB,
        ), how
        assert np.array_equal(written(rgb[..., 0], "minisblack", **how), GREY), how
        assert np.array_equal(written(top - rgb[..., 0], "miniswhite", **how), GREY), how


@pytest.mark.parametrize(
    "profile",
    [P3_PROFILE, matrix_profile(ADOBE_RGB, gamma_curve(2.2)), matrix_profile(DISPLAY_P3, gamma_curve(1.0))],
    ids=["Display P3", "Adobe RGB", "linear"],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_colours_are_those_of_little_cms(profile: bytes, kind: str) -> None:
    data = saved(Image.fromarray(RGB), kind, icc_profile=profile)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    wanted = ImageCms.profileToProfile(Image.open(io.BytesIO(data)), source, ImageCms.createProfile("sRGB"))
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(wanted))


def test_a_profile_of_srgb_changes_no_pixel() -> None:
    for profile in (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        matrix_profile(DISPLAY_P3._replace(red_x=0.64, red_y=0.33, green_x=0.3, green_y=0.6), srgb_curve),
    ):
        image = decode_image(saved(Image.fromarray(RGB), "PNG", icc_profile=profile))
        assert np.array_equal(np.asarray(image), RGB)
        assert not image.info["converted"]
        assert image.info["notes"] == []


def test_a_picture_that_is_open_is_converted_too() -> None:
    data = saved(flat((200, 120, 60)), "PNG", icc_profile=P3_PROFILE)
    opened = Image.open(io.BytesIO(data))
    assert upright_rgb(opened).getpixel((3, 3)) == decode_image(data).getpixel((3, 3)) != opened.getpixel((3, 3))


def test_what_is_written_says_srgb_and_comes_back() -> None:
    data = encode_png(Image.fromarray(RGB))
    assert b"sRGB\0" in data
    assert np.array_equal(np.asarray(decode_image(data)), RGB)
    assert DECODER == 2, "another decoder is another identity of results: say in docs/decoding.md what changed"
