"""Inception-v3 as FID is computed with: TensorFlow's network of 2015 in PyTorch (1,008 classes), its last pooling.

It differs from torchvision's in what its blocks pool: averages leave out the padding, and the last block takes maxima.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

from osasis.metrics.resize import resized

SIZE, WIDTH = 299, 2048


def _pooled_otherwise(block: Any, maxima: bool = False) -> type[nn.Module]:
    """A block of torchvision's whose last branch pools as TensorFlow's does."""

    class Block(block):  # type: ignore[misc]
        def _forward(self, x: Tensor) -> list[Tensor]:
            pooled = (
                F.max_pool2d(x, 3, stride=1, padding=1)
                if maxima
                else F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            )
            return [*super()._forward(x)[:-1], self.branch_pool(pooled)]

    return Block


class FidInception(nn.Module):
    """Images [B, 3, H, W] in [-1, 1] → features [B, 2048]. State-dict keys are torchvision's, as pytorch-fid's file has
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = Inception3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False)
        averages, maxima = _pooled_otherwise(InceptionE), _pooled_otherwise(InceptionE, maxima=True)
        for name, channels in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            width = 192 if name == "Mixed_5b" else 256 if name == "Mixed_5c" else 288
            setattr(blocks, name, _pooled_otherwise(InceptionA)(width, pool_features=channels))
        for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            setattr(blocks, name, _pooled_otherwise(InceptionC)(768, channels_7x7=channels))
        blocks.Mixed_7b, blocks.Mixed_7c = averages(1280), maxima(2048)
        blocks.fc = nn.Identity()
        self.network: Any = blocks

    def forward(self, images: Tensor) -> Tensor:
        return self.network(resized(images, SIZE))
