"""What a worker of the evaluation does: square pixels → each method's picture → measures and features.

Takes batches; gives the figures of each pair, the features that FID is made of, and a small JPEG that the report may
show. Needs the base, the networks that measure, and the styles. A picture of another method that cannot be read is
"failed", one that is none "rejected" by name; both belong to their pair alone.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.evaluating.methods import COLOUR, OURS, PHOTOGRAPH, Names, Pairing, found_in, pictures_of_folder
from jobs.streaming.encoding import Batch
from jobs.streaming.ledger import Ledger
from jobs.streaming.rows import OUTCOME, Row, finished_schema
from jobs.streaming.stylizing import STYLES_HELD, Shelf
from jobs.streaming.variants import Variant
from jobs.streaming.worker import Failed, Task, Worker
from osasis.errors import ImageRejected, NotFinite
from osasis.image import FitMode, decode_image, encode_image, fit, from_levels, to_levels, to_tensor
from osasis.method import pictures_of
from osasis.metrics import color_transfer
from osasis.metrics.networks import load_networks
from osasis.metrics.pairs import PAIR_METRICS, measure_pairs

METRIC_FIELDS = [pa.field(name, pa.float64()) for name in PAIR_METRICS]
_CARRIED = [pa.field("features", pa.list_(pa.float32())), pa.field("picture", pa.binary())]
"""What the driver folds into its state; no column of the table."""

JPEG_QUALITY = 90
_READERS = 8


@dataclass(frozen=True)
class Reference:
    """A style's picture: where it is, and how it becomes a square."""

    uri: str
    fit: FitMode

    def read(self, size: int) -> Tensor:
        """[1, 3, size, size] in [-1, 1].

        Raises:
            StorageError, ImageRejected: it cannot be had.
        """
        square, _ = fit(decode_image(Storage.open(self.uri).read_bytes()), size, self.fit)
        return to_tensor(square)[None]


@dataclass(frozen=True)
class EvaluatorTask(Task):
    """Everything a worker of the evaluation needs to know."""

    networks: str | None
    """Where the bundle of metric networks is."""
    references: dict[str, Reference]
    """By ``id@version``."""
    fit: FitMode
    max_pixels: int


@dataclass(frozen=True)
class Measured:
    """Of one pair."""

    figures: dict[str, float | None]
    features: npt.NDArray[np.float32]
    pixels: npt.NDArray[np.uint8]


class Evaluator(Worker[EvaluatorTask]):
    """Makes or reads the pictures of every method, and measures them."""

    schema = finished_schema(pa.struct([*OUTCOME, *METRIC_FIELDS, *_CARRIED]))
    styles_held = STYLES_HELD

    def __init__(self, task: EvaluatorTask, ledger: Ledger) -> None:
        super().__init__(task, ledger)
        self._shelves: dict[float, Shelf] = {}
        folder = fetch(task.networks, task.encode.cache_dir) if task.networks else None
        self.networks = load_networks(self.base, folder)
        self._references: dict[str, Tensor] = {}
        self._names: dict[str, Names] = {}

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    def _shelf(self, variant: Pairing) -> Shelf:
        """Of the strength that the variant's setting asks for."""
        strength = variant.config.weight_strength if variant.config else 1.0
        if strength not in self._shelves:
            self._shelves[strength] = Shelf(self.base, strength, self.task.encode.cache_dir)
        return self._shelves[strength]

    def _kinds(self) -> int:
        return len({v.config.t0_ratio for v in self.task.variants if isinstance(v, Pairing) and v.config}) or 1

    def prepare(self, variant: Variant, following: Variant | None) -> None:
        assert isinstance(variant, Pairing)
        if variant.method == OURS:
            self._shelf(variant).take(variant)
        if isinstance(following, Pairing) and following.method == OURS:
            self._shelf(following).fetch_ahead(following)
        if variant.style not in self._references:
            reference = self.task.references[variant.style].read(self.base.image_size)
            self._references[variant.style] = reference.to(self.base.device)
        if variant.folder is not None and variant.folder not in self._names:
            self._names[variant.folder] = pictures_of_folder(Storage.open(variant.folder))

    def results(self, variant: Variant, batch: Batch) -> Sequence[Any]:
        """One :class:`Measured` a picture."""
        assert isinstance(variant, Pairing)
        photos, reference = batch.all_images[batch.chosen], self._references[variant.style]
        found = self._pictures(variant, batch, photos, reference)
        usable = [i for i, picture in enumerate(found) if isinstance(picture, Tensor)]
        results: list[Any] = list(found)
        if usable:
            pictures = torch.stack([picture for picture in found if isinstance(picture, Tensor)])
            for i, measured in zip(usable, self._measured(photos[usable], pictures, reference), strict=True):
                results[i] = measured
        return results

    def keep(self, variant: Variant, row: Row, result: Any) -> Row:
        jpeg = encode_image(Image.fromarray(result.pixels), "jpeg", JPEG_QUALITY)
        return {**result.figures, "features": result.features, "picture": jpeg}

    def _measured(self, photos: Tensor, pictures: Tensor, reference: Tensor) -> list[Any]:
        levels = to_levels(pictures)
        measures = measure_pairs(self.networks, photos, from_levels(levels), reference)
        columns = {name: values.double().cpu().tolist() for name, values in measures.values.items()}
        features = measures.features.cpu().numpy()
        pixels = levels.movedim(1, -1).contiguous().cpu().numpy()
        results: list[Any] = []
        for i in range(len(photos)):
            figures = {name: values[i] if math.isfinite(values[i]) else None for name, values in columns.items()}
            missing = [name for name, value in figures.items() if value is None and name != "id_similarity"]
            said = Failed.by(NotFinite(f"{', '.join(missing)}: not a number"))
            results.append(said if missing else Measured(figures, features[i], pixels[i]))
        return results

    def _pictures(self, variant: Pairing, batch: Batch, photos: Tensor, reference: Tensor) -> list[Tensor | Failed]:
        """[3, S, S] of each, or why there is none."""
        if variant.method == PHOTOGRAPH:
            return list(photos)
        if variant.method == COLOUR:
            return list(color_transfer(photos, reference))
        if variant.folder is not None:
            return list(self._readers.map(lambda row: self._of_folder(variant.folder or "", row), batch.rows))
        assert variant.config is not None
        style = self._shelf(variant).take(variant)
        pictures = pictures_of(
            self.base, style, batch.all_images, variant.config, codes=batch.codes, chosen=torch.tensor(batch.chosen)
        )
        finite = pictures.isfinite().flatten(1).all(1).tolist()
        unusable = Failed.by(NotFinite("the picture holds pixels that are NaN or infinite"))
        return [picture if good else unusable for picture, good in zip(pictures, finite, strict=True)]

    def _of_folder(self, folder: str, row: Row) -> Tensor | Failed:
        name = found_in(self._names[folder], row["key"], row["input_uri"])
        if name is None:
            return Failed("missing", f"{folder} has no picture of {row['key']}")
        data = Storage.open(folder).read_bytes(name)
        try:
            square, _ = fit(decode_image(data, max_pixels=self.task.max_pixels), self.base.image_size, self.task.fit)
        except ImageRejected as rejected:
            return Failed(rejected.kind, f"{folder}/{name}: {rejected}")
        return to_tensor(square).to(self.base.device)
