"""Fréchet distance of two sets of features (FID, Heusel et al. 2017), from moments that are streamed and merged.

Shapes: N pictures, D features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_NEGLIGIBLE = 1e-10
"""Eigenvalues of a covariance below this part of the largest are rounding errors."""


@dataclass(frozen=True)
class Moments:
    """Count, mean [D] and scatter [D, D] (sum of outer products of deviations) of features: additive, in float64."""

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def none(cls, width: int) -> Self:
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, features: npt.NDArray[Any]) -> Self:
        """Of features [N, D]."""
        if len(features) == 0:
            return cls.none(features.shape[1])
        values = np.asarray(features, np.float64)
        mean = values.mean(0)
        centred = values - mean
        return cls(len(values), mean, centred.T @ centred)

    @classmethod
    def repeated(cls, features: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> Self:
        """Of features [N, D], the i-th taken ``counts[i]`` times."""
        values, weights = np.asarray(features, np.float64), counts.astype(np.float64)
        mean = weights @ values / weights.sum()
        centred = (values - mean) * np.sqrt(weights)[:, None]
        return cls(int(counts.sum()), mean, centred.T @ centred)

    def merged(self, other: "Moments") -> "Moments":
        """Of both sets together (Chan et al. 1979): no difference of large sums is taken."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), scatter)

    @cached_property
    def covariance(self) -> Array:
        """Unbiased [D, D], as pytorch-fid takes it; 0 of a single picture."""
        return self.scatter / max(self.count - 1, 1)

    @cached_property
    def factor(self) -> Array:
        """[D, rank] whose product with its transpose is the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        kept = values > _NEGLIGIBLE * max(values[-1], 0.0)
        return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def merged(moments: Iterable[Moments], width: int) -> Moments:
    """Of all of them; of none, with features of that width, where there are none."""
    return reduce(Moments.merged, moments, Moments.none(width))


def resampled(parts: Sequence[Moments], weights: npt.NDArray[Any]) -> Moments:
    """Of all parts together, the i-th taken ``weights[i]`` times."""
    counts = np.array([part.count for part in parts]) * weights
    total = int(counts.sum())
    mean = np.einsum("i,ij->j", counts / total, np.stack([part.mean for part in parts]))
    scatter = np.zeros((len(mean), len(mean)))
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            step = part.mean - mean
            scatter += weight * (part.scatter + part.count * np.outer(step, step))
    return Moments(total, mean, scatter)


def frechet_distance(ours: Moments, reference: Moments) -> float:
    """|mu1 - mu2|² + tr(C1 + C2 - 2 (C1 C2)^½).

    The trace of the root is the sum of the roots of the eigenvalues of Bᵀ C1 B, where C2 = B Bᵀ: a symmetric problem of
    the size of C2's rank, which singular covariances, those of fewer pictures than features, leave exact.
    """
    b = reference.factor
    root = np.sqrt(np.linalg.eigvalsh(b.T @ ours.covariance @ b).clip(0)).sum() if b.shape[1] else 0.0
    difference = ours.mean - reference.mean
    traces = np.trace(ours.covariance) + np.trace(reference.covariance)
    return float(max(difference @ difference + traces - 2 * root, 0.0))
