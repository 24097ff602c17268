"""A small CLIP and pictures to train it on."""

from typing import Any

import numpy as np
import torch

from osasis.networks.clip import ClipConfig, ClipEncoder, ClipTextConfig, ClipVisionConfig
from osasis.pretrain import captions
from osasis.pretrain.paint import STYLES

VOCAB = captions.vocabulary(word for style in STYLES for word in style.words)


def tiny(**changes: Any) -> ClipConfig:
    fields: dict[str, Any] = {
        "embed_dim": 16,
        "vision": ClipVisionConfig(layers=(1, 1, 1, 1), width=8, head_width=32, image_size=32),
        "text": ClipTextConfig(context_length=12, vocab_size=len(VOCAB) + 4, width=16, heads=2, layers=1),
        "vocab": VOCAB,
    }
    return ClipConfig(**(fields | changes))


def encoder(**changes: Any) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(tiny(**changes)).eval()


def portraits() -> tuple[np.ndarray, list[dict[str, str]]]:
    """Eight pictures that differ as their labels do."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (8, 36, 36, 3), dtype=np.uint8)
    images[:4, :18] += 150
    images[::2, :, :18, 2] += 90
    return images, [
        {"person": "man" if i < 4 else "woman", "glasses": "no" if i % 2 else "yes", "hair": "", "beard": "none"}
        for i in range(8)
    ]
