"""Stage "write": pixels → a durable file.

Takes [S, S, 3] uint8; gives the file's URI and sha256, once it is stored. Needs the output's storage; runs in the
worker's threads while it computes on. A fault of the output's storage stops the run: the picture stays undecided.

For another size than the base's the photograph is read and decoded once more, here, rather than carried through the
stages: what passes between them stays small, whatever the photographs are.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from catalog.output_names import picture_name
from cluster.storage import Storage
from jobs.streaming.listing import Source
from jobs.streaming.rows import Row
from osasis.full_size import Texture, full_size, scaled
from osasis.image import FitTransform, decode_image, encode_image, pixels_to_tensor
from osasis.imaging.encode import EXTENSIONS
from osasis.settings import PictureConfig

PIXELS_AT_ONCE = 64_000_000
"""Pixels of photographs that a worker's threads may hold at once; a larger photograph is held alone. About 14 bytes
each, with result and file."""


class PhotographUnreadable(Exception):
    """It was read before, and cannot be read now."""


class PhotographChanged(Exception):
    """It is no longer the file that was stylized."""


@dataclass(frozen=True)
class Write:
    """Writes pictures below an output."""

    output: Storage
    source: Source
    max_pixels: int
    settings: PictureConfig
    strength: float = 1.0
    """The style's."""
    hashed: bool = False
    """Whether pictures are spread over folders named by a hash."""
    packed: bool = False
    """Whether pictures are handed on as ``data``, for a shard, instead of being written."""

    def __call__(self, label: str, row: Row, pixels: npt.NDArray[np.uint8], texture: Texture = ()) -> Row:
        """Where the picture of a row of PICTURE in the variant ``label`` is, and its sha256."""
        settings = self.settings
        if settings.size == "base":
            data = encode_image(Image.fromarray(pixels), settings.format, settings.file_quality)
        else:
            with _room.held(row["width"] * row["height"]):
                whole = self._full_size(row, pixels, texture)
                data = encode_image(whole, settings.format, settings.file_quality)
        digest = hashlib.sha256(data).hexdigest()
        if self.packed:
            return {"data": data, "output_sha256": digest}
        name = picture_name(label, row["key"], EXTENSIONS[settings.format], hashed=self.hashed)
        self.output.write_bytes(name, data)
        return {"output_uri": self.output.child_uri(name), "output_sha256": digest}

    def _full_size(self, row: Row, pixels: npt.NDArray[np.uint8], texture: Texture) -> Image.Image:
        try:
            data = self.source.read(row["locator"])
        except Exception as error:
            raise PhotographUnreadable(f"{type(error).__name__}: {error}") from error
        if hashlib.sha256(data).hexdigest() != row["input_sha256"]:
            raise PhotographChanged("the file has changed since it was read first")
        photo = scaled(decode_image(data, max_pixels=self.max_pixels), self.settings.size)
        del data
        square = np.frombuffer(row["pixels"], np.uint8).reshape(pixels.shape)
        return full_size(
            photo,
            pixels_to_tensor(square),
            pixels_to_tensor(pixels),
            FitTransform.model_validate_json(row["transform"]),
            self.settings.detail,
            texture,
            self.strength,
        )


class _Room:
    """Lets threads in as long as there is room for what they hold; what is larger than all of it enters alone."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        amount = min(amount, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


_room = _Room(PIXELS_AT_ONCE)
