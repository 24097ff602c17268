"""What styles are trained on: pictures read, and photographs encoded once for all styles of a worker."""

from functools import lru_cache, partial

import torch

from cluster.storage import Storage
from jobs.finetuning.plan import StylePlan
from osasis.base import Base
from osasis.content import Content
from osasis.image import FitMode, decode_image, fit, to_tensor
from osasis.settings import TrainConfig
from osasis.style_training import training_content


class Contents:
    """A base and what its styles are trained on, encoded once for all styles with the same settings."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._made = lru_cache(maxsize=2)(self._make)

    def of(self, plan: StylePlan) -> Content:
        fields = {"content", "encode_steps", "decode_steps", "t0_ratio", "clamp", "batch_size", "seed", "fit"}
        return self._made(plan.config.model_dump_json(include=fields), plan.content)

    def _make(self, settings: str, uris: tuple[str, ...]) -> Content:
        config = TrainConfig.model_validate_json(settings)
        read = partial(read_image, size=self.base.image_size, mode=config.fit)
        return training_content(self.base, config, torch.cat([read(uri) for uri in uris]) if uris else None)


def read_image(uri: str, size: int, mode: FitMode) -> torch.Tensor:
    """[1, 3, S, S] in [-1, 1]."""
    square, _ = fit(decode_image(Storage.open(uri).read_bytes()), size, mode)
    return to_tensor(square)[None]
