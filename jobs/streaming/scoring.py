"""Scores of stylized pictures: how much structure each kept, and how near it came to the reference's style.

Takes the photographs and pictures of a batch, squares of the base; gives numbers a picture. Needs the base's own CLIP
or LPIPS, and the style's reference. Runs in the worker, once the pictures are on the host; what cannot be scored is
null.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from catalog.output_names import NO_STYLE
from cluster.storage.cache import fetch
from jobs.streaming.rows import SCORES, Row
from jobs.streaming.variants import Variant
from osasis.base import Base
from osasis.image import FitMode, decode_image, fit, to_tensor
from osasis.metrics import gradient_correlation, style_distance

_REFERENCES_HELD = 4

log = logging.getLogger(__name__)


@dataclass
class Scorer:
    """Scores pictures of one base."""

    base: Base
    cache_dir: Path

    def __post_init__(self) -> None:
        self._references: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, variant: Variant, mode: FitMode, photos: Tensor, pictures: Tensor) -> list[Row]:
        """Of ``photos`` and ``pictures`` [B, 3, S, S] in [-1, 1]; ``mode``: how the style's reference became square.

        ``structure``: :func:`osasis.metrics.gradient_correlation`, which needs no network, 1 for all of it; ``style``:
        :func:`osasis.metrics.style_distance` to the reference, where the photograph's own is 1 and the reference's 0.
        """

        def style() -> Tensor:
            reference = self._reference(variant, mode)
            before = style_distance(photos, reference, self.base).clamp_min(1e-6)
            return style_distance(pictures, reference, self.base) / before

        found = {
            "structure": _tried(variant, lambda: gradient_correlation(photos, pictures)),
            "style": None if variant.style_id == NO_STYLE else _tried(variant, style),
        }
        return [{name: _finite(found[name], i) for name in SCORES} for i in range(len(pictures))]

    def _reference(self, variant: Variant, mode: FitMode) -> Tensor:
        """[1, 3, S, S] in [-1, 1]."""
        if variant.style not in self._references:
            while len(self._references) >= _REFERENCES_HELD:
                self._references.popitem(last=False)
            file = fetch(variant.reference_uri, self.cache_dir)
            square, _ = fit(decode_image(file.read_bytes()), self.base.image_size, mode)
            self._references[variant.style] = to_tensor(square)[None].to(self.base.device)
        return self._references[variant.style]


def _tried(variant: Variant, score: Callable[[], Tensor]) -> list[float] | None:
    try:
        return score().tolist()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    log.warning("%s: not scored: %s", variant.label, said)
    return None


def _finite(values: list[float] | None, i: int) -> float | None:
    return values[i] if values and math.isfinite(values[i]) else None
