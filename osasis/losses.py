"""The loss terms of finetuning (Eq. 12-14). E: width of a CLIP embedding; every term returns a scalar."""

import torch.nn.functional as F
from torch import Tensor


def directional(source_from: Tensor, source_to: Tensor, target_from: Tensor, target_to: Tensor) -> Tensor:
    """1 - cosine between two directions of CLIP space (Eq. 12), mean over the batch.

    Args: embeddings [B, E] or [1, E], unit length; the directions are ``source_to - source_from`` and
        ``target_to - target_from``.
    """
    return (1 - F.cosine_similarity(source_to - source_from, target_to - target_from, dim=-1)).mean()


def clip_cosine(embedding: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of CLIP embeddings [B, E]: the official release's reconstruction."""
    return (1 - F.cosine_similarity(embedding, target, dim=-1)).mean()


def clip_l1(embedding: Tensor, target: Tensor) -> Tensor:
    """L1 of CLIP embeddings [B, E]: the paper's reconstruction."""
    return (embedding - target).abs().mean()
