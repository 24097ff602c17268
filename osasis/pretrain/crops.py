"""Training crops from an image set that fits in memory."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class CropSampler:
    """Random S×S crops from a small pyramid of antialiased sizes, flipped at random.

    The smallest size of the pyramid is S itself, so that uncropped framing is seen too.

    Args:
        images: uint8 [N, H, H, 3], H ≥ S.
        size: S, pixels.
        scales: sides of the pyramid relative to S, each from 1 to H/S.
    """

    def __init__(self, images: np.ndarray, size: int, scales: tuple[float, ...] = (1.0, 1.125, 1.25)) -> None:
        if images.ndim != 4 or images.shape[1] < size or images.shape[2] < size:
            raise ValueError(f"images must be [N, ≥{size}, ≥{size}, 3], got {images.shape}")
        self.size = size
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.levels = [_resized(pixels, round(size * scale)) for scale in scales]

    def __len__(self) -> int:
        return len(self.levels[0])

    def batch(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """[B] → [B, 3, S, S] float32 in [-1, 1]."""
        crops = [self._crop(int(i), generator) for i in indices]
        return torch.stack(crops).float().div_(127.5).sub_(1)

    def _crop(self, i: int, generator: torch.Generator) -> Tensor:
        level, top, left, flip = torch.rand(4, generator=generator).tolist()
        pixels = self.levels[int(level * len(self.levels))][i]
        room = pixels.shape[-1] - self.size + 1
        y, x = int(top * room), int(left * room)
        crop = pixels[:, y : y + self.size, x : x + self.size]
        return crop.flip(-1) if flip < 0.5 else crop


def _resized(pixels: Tensor, side: int, chunk: int = 256) -> Tensor:
    if pixels.shape[-1] == side:
        return pixels
    return torch.cat(
        [
            F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True).round_().to(torch.uint8)
            for part in pixels.split(chunk)
        ]
    )
