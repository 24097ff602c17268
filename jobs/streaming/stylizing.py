"""Stage "stylize": codes → pictures in a style (Eq. 11, 13), and what a whole worker of the stylize job does.

Takes batches with their codes, style by style; gives 8-bit pixels, copied to the host once a batch. Needs the style's
checkpoint. A picture with NaN is "failed"; a style that cannot be loaded stops the run.
"""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catalog.output_names import NO_STYLE
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.streaming.encoding import Batch
from jobs.streaming.ledger import Ledger
from jobs.streaming.packing import Bundle, Pack
from jobs.streaming.rows import Row
from jobs.streaming.scoring import Scorer
from jobs.streaming.structure import KeepStructure, KeptStructure
from jobs.streaming.variants import Variant
from jobs.streaming.worker import Failed, Task, Worker
from jobs.streaming.writing import Write
from osasis.base import Base
from osasis.checkpoint import Style, load_style
from osasis.errors import NotFinite
from osasis.full_size import Texture
from osasis.image import to_levels
from osasis.method import effective, pictures_of
from osasis.settings import StylizeConfig, TextConfig
from osasis.strength import at_strength, no_style
from osasis.stylize import encoding_for

STYLES_HELD = 4
"""Styles one worker keeps in memory, the one loaded ahead included; the least recently used goes first."""


@dataclass(frozen=True)
class Stylize:
    """The method's settings."""

    config: StylizeConfig
    text: TextConfig


@dataclass(frozen=True)
class StylizerTask(Task):
    """Everything a worker of the stylize job needs to know."""

    stylize: Stylize
    write: Write
    scores: bool = False
    keep: KeepStructure | None = None
    pack: Pack | None = None

    @property
    def written(self) -> tuple[Storage, ...]:
        return (self.write.output, *([self.keep.place] if self.keep else []))

    @property
    def in_shards(self) -> bool:
        return self.pack is not None and self.write.settings.size == "base"


@dataclass(frozen=True)
class Painted:
    """A picture in a style: [S, S, 3] uint8, the style's texture for enlarging it, and its scores."""

    pixels: npt.NDArray[np.uint8]
    texture: Texture
    scores: Row


class Stylizer(Worker[StylizerTask]):
    """Encodes, stylizes and writes."""

    styles_held = STYLES_HELD

    def __init__(self, task: StylizerTask, ledger: Ledger) -> None:
        super().__init__(task, ledger)
        self.styles = Shelf(self.base, task.stylize.config.weight_strength, task.encode.cache_dir)
        self.scorer = Scorer(self.base, task.encode.cache_dir) if task.scores else None
        self.structure = KeptStructure(self.base, task.keep) if task.keep else None

    def prepare(self, variant: Variant, following: Variant | None) -> None:
        self.styles.take(variant)
        if following is not None:
            self.styles.fetch_ahead(following)

    def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
        """One :class:`Painted` a picture."""
        style = self.styles.take(variant)
        if self.structure:
            asked = effective(style, self.task.stylize.config, variant.text, self.task.stylize.text)
            encoding = encoding_for(style, asked)
            if (encoding, None) not in batch.codes:
                batch.codes[encoding, None] = self.structure.codes(batch, encoding)
        pictures = pictures_of(
            self.base,
            style,
            batch.all_images,
            self.task.stylize.config,
            text=variant.text,
            text_config=self.task.stylize.text,
            codes=batch.codes,
            chosen=torch.tensor(batch.chosen),
        )
        finite = pictures.isfinite().flatten(1).all(1).cpu()
        pixels = to_levels(pictures).movedim(1, -1).contiguous().cpu().numpy()
        unusable = Failed.by(NotFinite("the picture holds pixels that are NaN or infinite"))
        scores: Sequence[Row] = [{}] * len(pixels)
        if self.scorer:
            photos = batch.all_images[torch.tensor(batch.chosen, device=pictures.device)]
            scores = self.scorer(variant, style.config.fit, photos, pictures)
        painted = [Painted(part, style.header.texture, score) for part, score in zip(pixels, scores, strict=True)]
        return [part if good else unusable for part, good in zip(painted, finite.tolist(), strict=True)]

    def bundle(self) -> Bundle:
        return Bundle(self.task.pack)

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        if self.structure:
            self.structure.finish()  # what is done has its codes kept
        return result.scores | self.task.write(variant.label, row, result.pixels, result.texture)


class Shelf:
    """Styles at the strength asked for, on the base's device; the next one is loaded in a thread."""

    def __init__(self, base: Base, strength: float, cache_dir: Path) -> None:
        self._base, self._strength, self._cache_dir = base, strength, cache_dir
        self._styles: OrderedDict[str, Future[Style]] = OrderedDict()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load-style")
        self.loads = 0

    def __len__(self) -> int:
        return len(self._styles)

    def take(self, variant: Variant) -> Style:
        """The variant's style; waits for it.

        Raises:
            OsasisError, StorageError: it cannot be loaded.
        """
        self.fetch_ahead(variant)
        self._styles.move_to_end(variant.style)
        try:
            return self._styles[variant.style].result()
        except BaseException:
            del self._styles[variant.style]
            raise

    def fetch_ahead(self, variant: Variant) -> None:
        """Start to load the variant's style, where it is not there."""
        if variant.style in self._styles:
            return
        while len(self._styles) >= STYLES_HELD:
            self._styles.popitem(last=False)
        self._styles[variant.style] = self._loader.submit(self._load, variant)

    @torch.no_grad()
    def _load(self, variant: Variant) -> Style:
        self.loads += 1
        if variant.style_id == NO_STYLE:
            return no_style(self._base)
        file = fetch(variant.checkpoint_uri, self._cache_dir, sha256=variant.checkpoint_sha256 or None)
        style = load_style(file, self._base)
        return at_strength(style, self._base, self._strength)
