"""What running jobs tell Prometheus, by the metrics port of Ray's nodes, where each name below has ``ray_`` before it.

No label takes more values than there are styles: nothing here is per picture. Without Ray nothing is recorded.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Stage = Literal["decode", "write", "computing", "pictures", "styles", "storage", "driver"]
"""decode: of decoding tasks; write: of writing threads; the others: what a worker did (:mod:`jobs.streaming.spent`)."""


@dataclass(frozen=True)
class Metric:
    """``rises``: a counter, of what happened so far; else a gauge, of what is."""

    description: str
    labels: tuple[str, ...] = ()
    rises: bool = True


METRICS = {
    "osasis_pictures_total": Metric("Pictures that were read and decoded, or could not be.", ("status",)),
    "osasis_pairs_total": Metric("Pairs of picture and variant that were decided.", ("status",)),
    "osasis_failures_total": Metric("Pairs that were rejected or failed, by error_type.", ("kind",)),
    "osasis_seconds_total": Metric(
        "Seconds of decoding, of writing, and of workers: computing (on a GPU or on CPUs), or waiting for something.",
        ("stage", "device"),
    ),
    "osasis_workers": Metric("Workers of a run that have loaded and work.", rises=False),
    "osasis_styles_training": Metric("Styles in training.", rises=False),
    "osasis_style_loss": Metric("Newest loss of a style in training.", ("style",), rises=False),
}


def count(name: str, value: float = 1, **labels: str) -> None:
    """Add to a counter."""
    if metric := _recorder(name):
        metric.inc(value, labels)


def gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge."""
    if metric := _recorder(name):
        metric.set(value, labels)


def spent(stage: Stage, seconds: float, device: str = "cpu") -> None:
    """Add to the seconds of a stage."""
    if seconds > 0:
        count("osasis_seconds_total", seconds, stage=stage, device=device)


@contextmanager
def timed(stage: Stage) -> Iterator[None]:
    """The seconds of the body are a stage's."""
    start = time.monotonic()
    try:
        yield
    finally:
        spent(stage, time.monotonic() - start)


def _recorder(name: str) -> Any:
    import ray

    return _made(name) if ray.is_initialized() else None


@lru_cache(maxsize=len(METRICS))
def _made(name: str) -> Any:
    from ray.util.metrics import Counter, Gauge

    metric = METRICS[name]
    kind = Counter if metric.rises else Gauge
    return kind(name, metric.description, metric.labels)
