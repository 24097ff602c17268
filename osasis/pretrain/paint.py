"""Other media from photographs, by filters: so that a CLIP learns to tell photo, painting, sketch and print.

Images are uint8 RGB [H, W, 3]. A painter takes an image and a random generator and returns an image of that size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from osasis.seeding import stable_seed

Medium = Literal["photo", "painting", "sketch", "print", "mosaic"]
Painter = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Style:
    """A painter and what its pictures are called."""

    medium: Medium
    words: tuple[str, ...]
    paint: Painter
    colors: bool = True
    """Whether hair and background keep their colours, so that a caption may name them."""


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.9, 2.2) * _scale(image))


def grayscale(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _rgb(_contrast(_gray(image), rng.uniform(0.8, 1.3)))


def sepia(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _toned(_gray(image), np.array([40, 25, 15]), np.array([250, 230, 190]))


def tint(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn the hue and stretch the channels."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
    hsv[..., 0] = (hsv[..., 0] + rng.integers(20, 160)) % 180
    turned = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    return _bytes(turned * rng.uniform(0.7, 1.2, 3))


def oil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Kuwahara's filter (each pixel takes the mean of its calmest quadrant), strong colours, a little canvas."""
    flat = _kuwahara(image, max(1, round(rng.uniform(1, 2.5) * _scale(image))))
    weave = cv2.GaussianBlur(rng.normal(0, 14, image.shape[:2]), (0, 0), 0.7, sigmaY=1.5)[..., None]
    return _bytes(_saturated(flat, rng.uniform(1.2, 1.7)) + weave)


def watercolor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Washes with sharp borders, thinned by the paper."""
    sigma = rng.uniform(8, 20) * _scale(image)
    washed = cv2.edgePreservingFilter(image, flags=cv2.RECURS_FILTER, sigma_s=sigma, sigma_r=rng.uniform(0.3, 0.5))
    paper = cv2.GaussianBlur(rng.normal(0, 20, image.shape[:2]), (0, 0), 1.5)[..., None]
    return _bytes(255 - (255 - _saturated(washed, 1.3).astype(float)) * rng.uniform(0.6, 0.85) + paper)


def pencil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour dodge of the image with its blurred negative, on grainy paper."""
    grain = rng.normal(0, rng.uniform(2, 9), image.shape[:2])
    return _rgb(_bytes(_contrast(_dodged(_gray(image), rng), 1.3) + grain - 8))


def colored_pencil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    strokes = _dodged(_gray(image), rng)[..., None] / 255.0
    pale = 255 - (255 - _saturated(image, 1.5)) * rng.uniform(0.45, 0.7)
    return _bytes(pale * strokes + rng.normal(0, 5, image.shape[:2])[..., None])


def ink(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines alone."""
    return _toned(_contours(image, rng.uniform(3, 6)), rng.uniform(0, 60, 3), rng.uniform(225, 255, 3))


def woodblock(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Few flat colours, dark contours, tinted paper."""
    flat = _posterized(_kuwahara(image, max(1, round(2 * _scale(image)))), int(rng.integers(3, 6)))
    paper = np.array([245, 232, 205]) * rng.uniform(0.92, 1.03)
    lines = _contours(image, rng.uniform(4, 7))[..., None] / 255.0
    dark = np.array([35, 30, 45])
    return _bytes((flat / 255.0 * paper) * lines + dark * (1 - lines))


def linocut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One ink on paper: black masses by threshold, contours cut through."""
    gray = cv2.GaussianBlur(_gray(image), (0, 0), 0.8 * _scale(image))
    masses = np.where(gray > np.quantile(gray, rng.uniform(0.3, 0.55)), 255, 0).astype(np.uint8)
    both = cv2.min(masses, _contours(image, rng.uniform(4, 7)))
    return _toned(both, rng.uniform(0, 70, 3), rng.uniform(215, 255, 3))


def poster(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    smooth = cv2.bilateralFilter(image, 7, 60, 5)
    return _posterized(_saturated(smooth, rng.uniform(1.3, 2.0)), int(rng.integers(3, 5)))


def mosaic(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tiles of one colour each, with grout between."""
    side = len(image)
    tile = rng.uniform(2.5, 5) * _scale(image)
    count = max(2, round(side / tile))
    tiles = cv2.resize(_saturated(image, 1.4), (count, count), interpolation=cv2.INTER_AREA).astype(float)
    tiles += rng.normal(0, 9, tiles.shape)
    flat = cv2.resize(tiles, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    phase = np.arange(side) * count / side % 1
    grout = (phase < max(0.15, count / side))[:, None] | (phase < max(0.15, count / side))[None]
    return _bytes(np.where(grout[..., None], rng.uniform(90, 200), flat))


def engraving(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slanted lines, the broader the darker the place, and contours."""
    gray = cv2.equalizeHist(_gray(image)) / 255.0
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    angle, period = rng.uniform(0, np.pi), rng.uniform(2.2, 4) * _scale(image)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    lines = _bytes(255 / (1 + np.exp(-10 * (gray - 0.9 * wave))))
    return _toned(cv2.min(lines, _contours(image, 6)), rng.uniform(0, 60, 3), rng.uniform(220, 255, 3))


def comic(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Few strong colours, black contours, dots in the shade."""
    flat = _posterized(_saturated(cv2.bilateralFilter(image, 7, 60, 5), 1.8), 4)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    period = 3 * _scale(image)
    dots = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period) > 0.2
    shade = (_gray(image) < 110) & dots
    lines = _contours(image, rng.uniform(4, 7))[..., None] / 255.0
    return _bytes(np.where(shade[..., None], 0.6 * flat, flat) * lines)


def old_master(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Oil in the colours of a painting."""
    return _in_colors(oil(image, rng), _PALETTES[rng.integers(len(_PALETTES))])


def japanese(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A woodblock print in Hokusai's colours."""
    return _in_colors(woodblock(image, rng), _HOKUSAI)


_HOKUSAI = ((65.7, 0.1, 7.1), (21.5, 2.5, 13.0))
_PALETTES = (
    ((35.7, -3.1, 1.1), (18.9, 5.7, 12.3)),  # Gerome, Head of an Italian Woman
    ((29.8, 5.9, 10.2), (19.9, 3.7, 3.9)),  # Phillips, Lena Ten Broeck
    ((49.2, 0.3, 9.3), (23.7, 3.5, 10.4)),  # van der Weyden, Portrait of a Lady
    ((48.2, -8.7, 7.8), (19.6, 4.0, 24.6)),  # van Gogh, Self-Portrait, 1889
    ((56.1, 0.0, 15.2), (7.7, 6.5, 24.2)),  # van Gogh, The Bedroom
    ((64.3, 5.5, 30.6), (9.5, 4.4, 14.6)),  # van Gogh, Self-Portrait with a Straw Hat
)
"""Mean and deviation of each CIELAB channel of pictures in the public domain (samples/styles/CREDITS.md)."""

STYLES = (
    Style("photo", ("blurry photo", "blurred photograph", "soft photo", "out of focus photo"), blur),
    Style("photo", ("black and white photo", "grayscale photo", "monochrome photograph"), grayscale, colors=False),
    Style("photo", ("sepia photo", "vintage photo", "vintage photograph"), sepia, colors=False),
    Style("photo", ("tinted photo", "photo with strange colors", "colorful photo"), tint, colors=False),
    Style("painting", ("painting", "oil painting", "painting on canvas", "painted portrait"), oil),
    Style("painting", ("painting", "watercolor painting", "watercolour", "watercolor"), watercolor),
    Style("sketch", ("sketch", "pencil sketch", "pencil drawing", "drawing", "charcoal sketch"), pencil, colors=False),
    Style("sketch", ("sketch", "colored pencil drawing", "color sketch", "crayon drawing"), colored_pencil),
    Style("sketch", ("sketch", "ink drawing", "line drawing", "line art", "ink sketch"), ink, colors=False),
    Style("print", ("print", "woodblock print", "japanese print", "ukiyo e print", "comic illustration"), woodblock),
    Style("print", ("print", "linocut", "woodcut", "black and white print", "engraving"), linocut, colors=False),
    Style("print", ("print", "screen print", "poster", "pop art print", "cartoon"), poster),
    Style("painting", ("painting", "old painting", "oil painting", "old master painting"), old_master, colors=False),
    Style("print", ("print", "japanese print", "japanese woodblock print", "ukiyo e print"), japanese, colors=False),
    Style("print", ("engraving", "etching", "copper engraving", "engraved print"), engraving, colors=False),
    Style("print", ("comic", "comic book picture", "comic strip", "cartoon"), comic),
    Style("mosaic", ("mosaic", "mosaic of tiles", "tile mosaic"), mosaic),
)


def paint_all(images: np.ndarray, variants: int, seed: int) -> tuple[np.ndarray, list[Style]]:
    """``variants`` different styles of every image, drawn by image and seed alone.

    Returns:
        uint8 [variants · N, H, W, 3], image i's j-th variant at j · N + i, and the style of each.

    Raises:
        ValueError: there are fewer styles than ``variants``.
    """
    if variants > len(STYLES):
        raise ValueError(f"{variants} variants were asked for, there are {len(STYLES)} styles")
    painted = np.empty((variants, *images.shape), np.uint8)
    styles: list[list[Style]] = [[] for _ in range(variants)]
    for i, image in enumerate(images):
        rng = np.random.default_rng(stable_seed(seed, "paint", i))
        for j, k in enumerate(rng.permutation(len(STYLES))[:variants]):
            painted[j, i] = STYLES[k].paint(image, rng)
            styles[j].append(STYLES[k])
    return painted.reshape(-1, *images.shape[1:]), [style for row in styles for style in row]


def _scale(image: np.ndarray) -> float:
    """Filter sizes are given for images of 80 pixels."""
    return max(image.shape[:2]) / 80


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _rgb(gray: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def _contrast(gray: np.ndarray, factor: float) -> np.ndarray:
    return _bytes((gray.astype(float) - 128) * factor + 128)


def _toned(gray: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    share = gray[..., None] / 255.0
    return _bytes(dark + (light - dark) * share)


def _in_colors(image: np.ndarray, palette: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    """The image with a palette's mean and deviation of every CIELAB channel (Reinhard et al. 2001)."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    mean, deviation = (np.array(part, np.float32) for part in palette)
    lab = (lab - lab.mean((0, 1))) * (deviation / np.maximum(lab.std((0, 1)), 1e-3)) + mean
    return _bytes(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255)


def _saturated(image: np.ndarray, factor: float) -> np.ndarray:
    gray = _gray(image)[..., None].astype(float)
    return _bytes(gray + (image - gray) * factor)


def _posterized(image: np.ndarray, levels: int) -> np.ndarray:
    return _bytes(np.rint(image / 255.0 * (levels - 1)) * (255 / (levels - 1)))


def _dodged(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    light = cv2.GaussianBlur(gray, (0, 0), rng.uniform(2.5, 6) * _scale(gray))
    return cv2.divide(gray, np.maximum(light, 1), scale=250)


def _contours(image: np.ndarray, offset: float) -> np.ndarray:
    """0 on lines, 255 elsewhere: pixels darker than their surroundings by ``offset``. [H, W]"""
    gray = cv2.medianBlur(_gray(image), 3)
    side = 2 * round(3 * _scale(image)) + 1
    return cv2.adaptiveThreshold(gray, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, side, offset)


def _kuwahara(image: np.ndarray, radius: int) -> np.ndarray:
    pixels = image.astype(np.float32)
    window = (radius + 1, radius + 1)
    means, spreads = [], []
    for anchor in ((0, 0), (0, radius), (radius, 0), (radius, radius)):
        mean = cv2.blur(pixels, window, anchor=anchor)
        means.append(mean)
        spreads.append((cv2.blur(pixels * pixels, window, anchor=anchor) - mean * mean).sum(-1))
    calmest = np.argmin(spreads, axis=0)
    return _bytes(np.take_along_axis(np.stack(means), calmest[None, ..., None], axis=0)[0])
