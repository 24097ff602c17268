"""A gallery's pictures measured by the judge, with colour transfer beside them."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from catalog.schema import StyleVersion
from jobs.shared.gallery import Gallery
from osasis.image import fit, to_tensor
from osasis.metrics import Judge, Measures, color_transfer

_SIZE = 256


@dataclass(frozen=True)
class Measured:
    """One style's pictures. ``change``: mean absolute difference from the photographs, in [-1, 1]."""

    style: StyleVersion
    pictures: int
    ours: Measures
    color_transfer: Measures
    change: float


def measure(gallery: Gallery, judge: Judge) -> list[Measured]:
    """Every style of the gallery that has pictures; the central square of each, at most 256 pixels large."""
    measured = []
    for column in gallery.columns:
        uris = [uri for uri in gallery.photos if uri in column.results]
        if not uris:
            continue
        size = min(_SIZE, *(min(picture.size) for picture in column.results.values()))
        photos = _squares([gallery.photos[uri] for uri in uris], size)
        results = _squares([column.results[uri] for uri in uris], size)
        reference = _squares([column.reference], size)
        measured.append(
            Measured(
                column.style,
                len(uris),
                judge.measure(photos, results, reference),
                judge.measure(photos, color_transfer(photos, reference), reference),
                (photos - results).abs().mean().item(),
            )
        )
    return measured


def _squares(pictures: list[Image.Image], size: int) -> Tensor:
    """[B, 3, size, size] in [-1, 1]."""
    return torch.stack([to_tensor(fit(picture, size)[0]) for picture in pictures])
