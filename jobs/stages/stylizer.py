"""Actor stage: square pixels → encode once → every missing variant → durable PNGs. One row out for every row in."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster.cache import fetch
from cluster.storage import Storage
from jobs.bases import open_base
from jobs.stages.variants import NO_STYLE, Variant
from osasis.checkpoint import Style, load_style
from osasis.content import Content
from osasis.image import encode_png, to_image
from osasis.strength import at_strength, no_style, without_style
from osasis.stylize import Encoding, encode, encoding_for, stylize
from osasis.stylize_config import StylizeConfig
from osasis.text_config import TextConfig
from osasis.text_edit import edit

Row = dict[str, Any]

Encodings = dict[tuple[Encoding, str | None], Content]
"""Codes of a batch of rows, by how they were encoded and the prompt that z_in was moved by."""

STYLES_HELD = 4
"""Styles one actor keeps in memory; the least recently used goes first."""

OUTCOME = pa.struct(
    [
        ("style", pa.string()),
        ("status", pa.string()),
        ("output_uri", pa.string()),
        ("output_sha256", pa.string()),
        ("error_type", pa.string()),
        ("error", pa.string()),
        ("seconds", pa.float64()),
    ]
)

FINISHED = pa.schema(
    [
        ("input_uri", pa.string()),
        ("key", pa.string()),
        ("input_sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("transform", pa.string()),
        ("outcomes", pa.list_(OUTCOME)),
    ]
)
"""One row an input; ``outcomes`` has one entry for each variant that was missing."""


@dataclass(frozen=True)
class StylizerTask:
    """Everything an actor needs to know."""

    base_location: str
    variants: tuple[Variant, ...]
    config: StylizeConfig
    text: TextConfig
    output: Storage
    cache_dir: Path
    batch_size: int
    threads: int
    device: str


class Stylizer:
    """Holds a base and a few styles; failures stay with the picture that caused them."""

    def __init__(self, task: StylizerTask) -> None:
        torch.set_num_threads(task.threads)
        self.task = task
        self.base = open_base(task.base_location, task.device, task.cache_dir)
        self._variants = {variant.label: variant for variant in task.variants}
        self._styles: OrderedDict[str, Style] = OrderedDict()

    def __call__(self, prepared: pa.Table) -> pa.Table:
        """PREPARED → FINISHED."""
        rows = prepared.to_pylist()
        for row in rows:
            row["outcomes"] = []
            if row["status"] is not None:
                _fail(row, row["missing"], row["status"], row["error_type"], row["error"])
        ready = [row for row in rows if row["status"] is None]
        for start in range(0, len(ready), self.task.batch_size):
            self._stylize(ready[start : start + self.task.batch_size])
        return pa.Table.from_pylist([{name: row[name] for name in FINISHED.names} for row in rows], schema=FINISHED)

    def pictures(self, label: str, rows: Sequence[Row], chosen: list[int], encodings: Encodings) -> Tensor:
        """The chosen rows in the named variant: [len(chosen), 3, S, S].

        ``encodings`` holds what variants share: those of another depth need an encoding of their own, and each prompt
        a z_in of its own, whatever the style.
        """
        variant = self._variants[label]
        style, config = self._style(variant), self.task.config
        if variant.style_id == NO_STYLE:
            config = without_style(config)
        if variant.text:
            config = self.task.text.deepened(config)
        encoding = encoding_for(style, config)
        if (encoding, None) not in encodings:
            encodings[encoding, None] = encode(self.base, self._images(rows), encoding)
        if (encoding, variant.text) not in encodings:
            plain, prompts = encodings[encoding, None], [variant.text or ""]
            (encodings[encoding, variant.text],) = edit(self.base, plain, prompts, self.task.text, encoding)
        return stylize(style, encodings[encoding, variant.text][torch.tensor(chosen)], config)

    def _stylize(self, rows: Sequence[Row]) -> None:
        encodings: Encodings = {}
        for label in self._variants:
            chosen = [i for i, row in enumerate(rows) if label in row["missing"]]
            if chosen:
                self._attempt(label, rows, chosen, encodings)

    def _attempt(self, label: str, rows: Sequence[Row], chosen: list[int], encodings: Encodings) -> None:
        """One variant of a batch; where that fails, by a picture of it or for want of memory, picture by picture."""
        start = time.monotonic()
        try:
            with torch.inference_mode():
                pictures = self.pictures(label, rows, chosen, encodings)
        except Exception as error:
            if len(rows) == 1:
                _fail(rows[0], [label], "failed", type(error).__name__, str(error))
                return
            for i in chosen:
                self._attempt(label, [rows[i]], [0], {})
            return
        seconds = (time.monotonic() - start) / len(chosen)
        for i, picture in zip(chosen, pictures, strict=True):
            self._write(label, rows[i], picture, seconds)

    def _write(self, label: str, row: Row, picture: Tensor, seconds: float) -> None:
        name = f"images/{label}/{row['key']}.png"
        try:
            data = encode_png(to_image(picture))
            self.task.output.write_bytes(name, data)
        except Exception as error:
            _fail(row, [label], "failed", type(error).__name__, str(error))
            return
        row["outcomes"].append(
            {
                "style": label,
                "status": "done",
                "output_uri": self.task.output.child_uri(name),
                "output_sha256": hashlib.sha256(data).hexdigest(),
                "seconds": seconds,
            }
        )

    def _images(self, rows: Sequence[Row]) -> Tensor:
        size = self.base.image_size
        pixels = np.stack([np.frombuffer(row["pixels"], np.uint8).reshape(size, size, 3) for row in rows])
        return torch.from_numpy(pixels).to(self.base.device).permute(0, 3, 1, 2).float() / 127.5 - 1

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


def _fail(row: Row, labels: Sequence[str], status: str, error_type: str, error: str) -> None:
    for label in labels:
        row["outcomes"].append(
            {"style": label, "status": status, "error_type": error_type, "error": error, "seconds": 0.0}
        )
