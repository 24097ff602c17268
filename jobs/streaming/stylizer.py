"""Actor stage: square pixels → encode once → every missing variant → durable PNGs. One row out for every row in."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from catalog.output_names import NO_STYLE, picture_name
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.streaming.variants import Variant
from jobs.streaming.worker import Row, Task, Worker
from osasis.checkpoint import Style, load_style
from osasis.image import encode_png, to_image
from osasis.method import Codes, pictures_of
from osasis.precision import Precision
from osasis.settings import StylizeConfig, TextConfig
from osasis.strength import at_strength, no_style

STYLES_HELD = 4
"""Styles one actor keeps in memory; the least recently used goes first."""


@dataclass(frozen=True)
class StylizerTask(Task):
    """Everything an actor needs to know."""

    config: StylizeConfig
    text: TextConfig
    output: Storage

    @property
    def precision(self) -> Precision:
        return self.config.precision


class Stylizer(Worker[StylizerTask]):
    """Holds a base and a few styles; failures stay with the picture that caused them."""

    def __init__(self, task: StylizerTask) -> None:
        super().__init__(task)
        self._styles: OrderedDict[str, Style] = OrderedDict()

    def pictures(self, label: str, rows: Sequence[Row], chosen: list[int], codes: Codes) -> Tensor:
        """The chosen rows in the named variant: [len(chosen), 3, S, S].

        ``codes`` holds what variants share: those of another depth need an encoding of their own, and each prompt
        a z_in of its own, whatever the style.
        """
        variant = self.variants[label]
        return pictures_of(
            self.base,
            self._style(variant),
            self.images(rows),
            self.task.config,
            text=variant.text,
            text_config=self.task.text,
            codes=codes,
            chosen=torch.tensor(chosen),
        )

    def results(self, label: str, rows: Sequence[Row], chosen: list[int], shared: dict[Any, Any]) -> Sequence[Any]:
        return [*self.pictures(label, rows, chosen, shared)]

    def keep(self, label: str, row: Row, result: Any) -> Row:
        """Write the picture."""
        name = picture_name(label, row["key"])
        data = encode_png(to_image(result))
        self.task.output.write_bytes(name, data)
        return {
            "output_uri": self.task.output.child_uri(name),
            "output_sha256": hashlib.sha256(data).hexdigest(),
        }

    def _style(self, variant: Variant) -> Style:
        if variant.style not in self._styles:
            while len(self._styles) >= STYLES_HELD:
                self._styles.popitem(last=False)
            self._styles[variant.style] = self._load(variant)
        self._styles.move_to_end(variant.style)
        return self._styles[variant.style]

    def _load(self, variant: Variant) -> Style:
        if variant.style_id == NO_STYLE:
            return no_style(self.base)
        style = load_style(fetch(variant.checkpoint_uri, self.task.cache_dir), self.base)
        return at_strength(style, self.base, self.task.config.weight_strength)
