"""Training crops from an image set of any size: images are read one at a time, memory-mapped files stay on disk."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from osasis.image import to_tensor


class Augmentation(BaseModel):
    """How training images are varied; every draw belongs to the image's place in its batch, not to a worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: float = Field(0.5, ge=0, le=1, description="Share of images that are mirrored.")
    zoom: float = Field(0.25, ge=0, lt=4, description="Largest enlargement: 0.25 shows as little as 4/5 of the side.")
    shift: float = Field(1.0, ge=0, le=1, description="Share used of the room that enlargement leaves for shifts.")
    colour: float = Field(0.0, ge=0, lt=1, description="Spread of brightness and contrast; a third per channel.")


class ImageSet(Protocol):
    """Images uint8 [H, H, 3] by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


class JoinedImages:
    """Several image arrays [N_i, H, H, 3], such as memory-mapped files, as one set."""

    def __init__(self, parts: Sequence[ImageSet]) -> None:
        self._parts = parts
        self._ends = np.array(list(accumulate(len(part) for part in parts)), dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int, /) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - (int(self._ends[part - 1]) if part else 0)]


class CropSampler:
    """Random S×S views of an image set: enlarged a little, shifted, mirrored, in other light.

    The whole frame (no enlargement) is the far end of what is drawn, so that uncropped framing is seen too.

    Args:
        images: H ≥ S; H ≥ S·(1 + zoom) keeps enlarged views sharp.
        size: S, pixels.
    """

    def __init__(self, images: ImageSet, size: int, augment: Augmentation | None = None) -> None:
        shape = images[0].shape if len(images) else ()
        if len(shape) != 3 or min(shape[:2]) < size:
            raise ValueError(f"images must be [N, ≥{size}, ≥{size}, 3], got {(len(images), *shape)}")
        self.images = images
        self.size = size
        self.augment = augment or Augmentation()

    def __len__(self) -> int:
        return len(self.images)

    def view(self, index: int, generator: torch.Generator) -> Tensor:
        """[3, S, S] float32 in [-1, 1]."""
        a = self.augment
        zoom, left, top, flip = torch.rand(4, generator=generator).tolist()
        pixels = self.images[index]
        window = pixels.shape[0] / (1 + a.zoom * zoom)
        room = pixels.shape[0] - window
        x, y = (room * (0.5 + a.shift * (place - 0.5)) for place in (left, top))
        # The filter by which photographs are fitted when a style is made (osasis.image.fit).
        square = Image.fromarray(pixels).resize(
            (self.size, self.size), Image.Resampling.LANCZOS, box=(x, y, x + window, y + window)
        )
        view = to_tensor(square)
        if flip < a.flip:
            view = view.flip(-1)
        return jitter(view[None], a.colour, generator)[0] if a.colour else view

    def whole(self, index: int) -> Tensor:
        """The image in its own framing, as photographs are fitted: [3, S, S]."""
        return to_tensor(Image.fromarray(self.images[index]).resize((self.size, self.size), Image.Resampling.LANCZOS))


def jitter(images: Tensor, spread: float, rng: torch.Generator) -> Tensor:
    """Brightness and contrast of each image [B, 3, S, S], and a third as much of each channel."""
    b = len(images)
    gain, shift = 1 + spread * (2 * torch.rand(2, b, 1, 1, 1, generator=rng) - 1)
    tone = spread / 3 * (2 * torch.rand(b, 3, 1, 1, generator=rng) - 1)
    return (images * gain + (shift - 1) + tone).clamp(-1, 1)
