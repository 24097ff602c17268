"""Keys of a vision transformer, whose self-similarity is a picture's structure (Tumanyan et al. 2022, "Splice")."""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from osasis.metrics.resize import resized

SIZE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HEAD_WIDTH = 64


class VitConfig(BaseModel):
    """Sizes of a plain ViT, as DINO's; its heads are 64 wide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(gt=0)
    depth: int = Field(gt=0)
    patch: int = Field(gt=0)
    heads: int | None = Field(None, gt=0)


class VitKeys(nn.Module):
    """Keys of the last layer. Images [B, 3, H, W] in [-1, 1], seen at 224 pixels → [B, tokens, width]."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.network: Any = timm.models.VisionTransformer(
            img_size=SIZE, patch_size=config.patch, embed_dim=config.width, depth=config.depth,
            num_heads=config.heads or config.width // _HEAD_WIDTH, num_classes=0, norm_layer=_norm,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        x = ((resized(images, SIZE) + 1) / 2 - mean) / std
        x = self.network._pos_embed(self.network.patch_embed(x))
        *blocks, last = self.network.blocks
        for block in blocks:
            x = block(x)
        queries_keys_values: Tensor = last.attn.qkv(last.norm1(x))
        return queries_keys_values.chunk(3, dim=-1)[1]


def _norm(width: int, **_: Any) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def self_similarity(places: Tensor) -> Tensor:
    """[B, places, C] → cosines between all places, [B, places, places]."""
    unit = F.normalize(places.float(), dim=-1)
    return torch.bmm(unit, unit.transpose(1, 2))


def structure_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of self-similarities of two pictures' places [B, places, C] → [B]; 0: same structure."""
    return (self_similarity(a) - self_similarity(b)).square().mean((1, 2))
