"""Enlarging a stylization: colour maps from the small photograph to its stylization, applied to the large photograph.

Guided filter (He, Sun and Tang 2013, Eq. 19-21; its fast form, He and Sun 2015) with affine maps of colour. Where a
window is too flat to tell, the map is that of the whole picture instead of a constant: the photograph's fine detail is
kept there too, and a stylization that changed nothing leads to the photograph exactly.

Shapes: small pictures [3, s, s'], middle ones a power of two larger, large ones [3, H, W], all in [-1, 1]; maps
[12, …]: nine factors, row by row of the output's channels, then three offsets.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Detail = Literal["guided", "residual", "none"]

RADIUS = 3 / 64
"""Of the windows, in sides of the small picture."""

EPSILON = 2e-2
"""Variance of colour, in [-1, 1], below which a window's own map gives way to the whole picture's."""

BAND_GAIN = (0.5, 4.0)
"""How far the contrast of a band is changed at most."""

RESIDUAL = 0.75
"""Part of what the maps cannot say that is added back. With all of it the base's blur and slips come along: on eight
portraits in the Hokusai of mini64 style distance 0.435, structure 0.099, edges 0.918; with 3/4 0.430, 0.094, 0.931."""

_SINGULAR = 1e-5
"""Variance below which the whole picture's map gives way to the identity: a grey picture tells nothing of colours."""


class Upsampler:
    """One stylization, ready for any part of the large picture.

    Args:
        photo, stylized: the small pictures.
        size: (H, W) of the large one.
        middle: the photograph at the small size times a power of two, for what the maps cannot tell ("residual"):
            strokes where the photograph has no edge, and the contrast of bands finer than the small picture. None: the
            maps alone ("guided").
        bands: contrast of the reference's octaves [any, 3], the one next to the small size first
            (:func:`band_deviations`).
        strength: of the style, in [0, 1]: strokes and texture come with it, so that the path from the photograph is
            smooth.
    """

    def __init__(
        self,
        photo: Tensor,
        stylized: Tensor,
        size: tuple[int, int],
        *,
        middle: Tensor | None = None,
        bands: Tensor | None = None,
        strength: float = 1.0,
    ) -> None:
        self.maps = color_maps(photo, stylized)
        self._maps_at = _Axes(self.maps, size)
        self.residual: Tensor | None = None
        if middle is not None:
            self.residual = strength * self._residual(photo, stylized, middle, bands)
            self._residual_at = _Axes(self.residual, size)

    def __call__(self, photo: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """A part of the large photograph, whose upper left corner is at ``top``, ``left``, stylized."""
        place = (top, left, *photo.shape[-2:])
        large = apply_maps(self._maps_at(self.maps, *place), photo)
        return large if self.residual is None else large + self._residual_at(self.residual, *place)

    def _residual(self, photo: Tensor, stylized: Tensor, middle: Tensor, bands: Tensor | None) -> Tensor:
        """What is to be added to the maps' result at the middle size."""
        size = (middle.shape[1], middle.shape[2])
        guided = apply_maps(_Axes(self.maps, size)(self.maps, 0, 0, *size), middle)
        wanted = guided + RESIDUAL * resize(stylized - apply_maps(self.maps, photo), size)
        if bands is not None:
            wanted = match_bands(wanted, octaves(photo.shape[1], size[0]), bands)
        return wanted - guided


def color_maps(photo: Tensor, stylized: Tensor) -> Tensor:
    """For every pixel the affine map of colours that leads from ``photo`` to ``stylized`` around it: [12, s, s']."""
    radius = max(1, round(RADIUS * max(photo.shape[-2:])))
    identity = torch.eye(3, dtype=torch.float64)[..., None, None]
    pair = photo.double(), stylized.double()
    whole, _ = _regression(*pair, lambda x: x.mean((-2, -1), keepdim=True), identity, _SINGULAR)
    factors, offsets = _regression(*pair, lambda x: _window_mean(x, radius), whole, EPSILON)
    maps = torch.cat([factors.flatten(0, 1), offsets])
    return _window_mean(maps, radius).float()


def apply_maps(maps: Tensor, photo: Tensor) -> Tensor:
    """Each pixel of ``photo`` by its own map."""
    return (maps[:9].unflatten(0, (3, 3)) * photo).sum(1) + maps[9:]


def band_deviations(image: Tensor, count: int) -> Tensor:
    """Contrast of the ``count`` finest octaves of ``image``, the coarsest of them first: [count, 3]."""
    _, bands = _laplacian_pyramid(image, count)
    return torch.stack([band.std((1, 2)) for band in bands]) if bands else image.new_zeros(0, 3)


def match_bands(image: Tensor, count: int, deviations: Tensor) -> Tensor:
    """The image with the contrast of its ``count`` finest octaves brought to ``deviations`` [any, 3].

    The coarsest of them first; octaves without a deviation stay as they are. One factor for all channels, so that
    noise is not coloured.
    """
    result, bands = _laplacian_pyramid(image, count)
    for i, band in enumerate(bands):
        gain = torch.ones(())
        if i < len(deviations):
            contrast = band.std((1, 2)).square().mean().sqrt()
            gain = (deviations[i].square().mean().sqrt() / contrast.clamp_min(1e-6)).clamp(*BAND_GAIN)
        result = resize(result, (band.shape[1], band.shape[2])) + gain * band
    return result


def octaves(small: int, large: int) -> int:
    """How often ``small`` can be doubled without going beyond ``large``."""
    return max(0, (large // small).bit_length() - 1)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[C, H, W] to another size: bicubic, antialiased where it shrinks."""
    return F.interpolate(image[None], size, mode="bicubic", align_corners=False, antialias=True)[0]


class _Axes:
    """Bilinear interpolation of [C, s, s'] to [C, H, W], any part of it by itself."""

    def __init__(self, small: Tensor, size: tuple[int, int]) -> None:
        self._sizes = list(zip(small.shape[-2:], size, strict=True))

    def __call__(self, values: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        rows, down = _weights(*self._sizes[0], top, height)
        columns, across = _weights(*self._sizes[1], left, width)
        return down.T @ values[:, rows, columns] @ across


def _weights(small: int, large: int, start: int, count: int) -> tuple[slice, Tensor]:
    """Of ``large`` places ``count`` from ``start`` on: their neighbours among ``small`` ones, and a matrix of weights.

    As a matrix, since gathering along rows takes many times longer.
    """
    places = torch.arange(start, start + count, dtype=torch.float64)
    position = ((places + 0.5) * (small / large) - 0.5).clamp(0, small - 1)
    low = position.long().clamp(max=max(0, small - 2))
    first, last = int(low[0]), min(int(low[-1]) + 1, small - 1)
    distance = (position - torch.arange(first, last + 1)[:, None]).abs()
    return slice(first, last + 1), (1 - distance).clamp(min=0).float()


def _regression(
    photo: Tensor, stylized: Tensor, mean: Callable[[Tensor], Tensor], prior: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Ridge regression of ``stylized`` on ``photo`` over the windows of ``mean``, towards the factors ``prior``.

    Returns factors [3, 3, …] (output's channel, photograph's) and offsets [3, …].
    """
    mean_i, mean_p = mean(photo), mean(stylized)
    variance = _covariance(photo, photo, mean, mean_i, mean_i)  # [3, 3, …]
    covariance = _covariance(stylized, photo, mean, mean_p, mean_i)
    eye = torch.eye(3, dtype=photo.dtype)[..., None, None]
    # factors · (variance + ε) = covariance + ε · prior; both sides transposed for solve, batch axes first.
    left = (variance + epsilon * eye).permute(2, 3, 0, 1)
    right = (covariance + epsilon * prior).permute(2, 3, 1, 0)
    factors = torch.linalg.solve(left, right).permute(3, 2, 0, 1)
    return factors, mean_p - (factors * mean_i).sum(1)


def _covariance(a: Tensor, b: Tensor, mean: Callable[[Tensor], Tensor], mean_a: Tensor, mean_b: Tensor) -> Tensor:
    products = (a[:, None] * b[None]).flatten(0, 1)
    return mean(products).unflatten(0, (3, 3)) - mean_a[:, None] * mean_b[None]


def _window_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over (2 · radius + 1)² pixels, fewer at the edges."""
    return F.avg_pool2d(values[None], 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)[0]


def _laplacian_pyramid(image: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """What is left after ``count`` octaves, and those, the coarsest first."""
    bands: list[Tensor] = []
    for _ in range(count):
        size = (image.shape[1], image.shape[2])
        smaller = resize(image, (-(-size[0] // 2), -(-size[1] // 2)))
        bands.insert(0, image - resize(smaller, size))
        image = smaller
    return image, bands
