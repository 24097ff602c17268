"""Stage "encode": square pixels → codes (Eq. 7), once for all styles and prompts that share them.

Takes the pictures of a DECODED chunk, in batches; gives each batch its codes, which stay on the device, or on the host
where a chunk's would take too much of the device's memory. Needs the base. Runs in the worker's process, when the
first style asks for it; a failure is traced to its picture by :class:`jobs.streaming.worker.Worker`.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.shared.bases import open_base
from jobs.streaming.rows import Row
from osasis.base import Base
from osasis.content import Content
from osasis.image import from_levels
from osasis.method import CodesKey
from osasis.precision import Precision

_SHARE = 0.25
"""Part of a device's free memory that the codes of a chunk may take."""


@dataclass(frozen=True)
class Encode:
    """Which base encodes, and where."""

    base_location: str
    cache_dir: Path
    batch_size: int
    threads: int
    device: str = "cpu"
    precision: Precision = "float32"

    def open(self) -> Base:
        """Load the base, in the worker's process."""
        torch.set_num_threads(self.threads)
        return open_base(self.base_location, self.device, self.cache_dir, self.precision)

    def batches(self, rows: Sequence[Row], base: Base, kinds: int) -> list["Batch"]:
        """The decoded rows in batches, where each picture has up to ``kinds`` kinds of codes."""
        keep = _place_of_codes(base, len(rows) * kinds)
        size = self.batch_size
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        return [Batch(part, base, CodeStore(base.device, keep), range(len(part))) for part in parts]


class CodeStore(MutableMapping[CodesKey, Content]):
    """Codes of one batch, kept in one place and used in another."""

    def __init__(self, use: torch.device, keep: torch.device) -> None:
        self._use, self._keep = use, keep
        self._codes: dict[CodesKey, Content] = {}

    def __getitem__(self, key: CodesKey) -> Content:
        return _moved(self._codes[key], self._use)

    def __setitem__(self, key: CodesKey, content: Content) -> None:
        self._codes[key] = _moved(content, self._keep)

    def __delitem__(self, key: CodesKey) -> None:
        del self._codes[key]

    def __iter__(self) -> Iterator[CodesKey]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def part(self, indices: Tensor) -> "CodeStore":
        """The codes of some of the pictures."""
        part = CodeStore(self._use, self._keep)
        part._codes = {key: content[indices.to(self._keep)] for key, content in self._codes.items()}
        return part


@dataclass(frozen=True)
class Batch:
    """Decoded rows that are computed at once. ``chosen``: those of them that are wanted now; codes are of all."""

    all_rows: Sequence[Row]
    base: Base
    codes: CodeStore
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def rows(self) -> list[Row]:
        """The rows wanted."""
        return [self.all_rows[i] for i in self.chosen]

    @property
    def all_images(self) -> Tensor:
        """[B, 3, S, S] in [-1, 1] on the base's device."""
        size = self.base.image_size
        pixels = np.stack([np.frombuffer(row["pixels"], np.uint8).reshape(size, size, 3) for row in self.all_rows])
        return from_levels(torch.from_numpy(pixels).to(self.base.device).movedim(-1, -3))

    def choose(self, indices: Sequence[int]) -> "Batch":
        """The same batch, where these of the wanted rows are wanted."""
        return replace(self, chosen=[self.chosen[i] for i in indices])

    def part(self, indices: Sequence[int]) -> "Batch":
        """A batch of these of the wanted rows alone, with the codes they have."""
        places = [self.chosen[i] for i in indices]
        rows = [self.all_rows[i] for i in places]
        return Batch(rows, self.base, self.codes.part(torch.tensor(places)), range(len(rows)))


def _moved(content: Content, device: torch.device) -> Content:
    return Content(*(getattr(content, f.name).to(device) for f in fields(Content)))


def _place_of_codes(base: Base, count: int) -> torch.device:
    if base.device.type != "cuda":
        return base.device
    size = base.image_size
    needed = count * 4 * (2 * 3 * size * size + base.spec.encoder.out_channels)  # float32: photos, x_t0, z_in
    free, _ = torch.cuda.mem_get_info(base.device)
    return base.device if needed < _SHARE * free else torch.device("cpu")
