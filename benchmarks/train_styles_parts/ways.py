"""The ways to train a style that are compared, and the reference pictures that each trains."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from osasis.image import decode_image


@dataclass(frozen=True)
class Way:
    """One way to train: a loop and settings over the base's own."""

    lever: str
    loop: Literal["release", "ours"] = "ours"
    train: dict[str, Any] = field(default_factory=dict)
    timed: bool = False
    """Its updates are those of the way before it: only their pace is measured."""
    warm: bool = False
    """It begins at the average of the two styles that were trained by ``adapters`` and are nearest."""


_RELEASE = {
    "batch_size": 8, "rate_decay": 0.0, "precision": "float32", "spn_width": 128, "adapter_rank": 0,
}  # fmt: skip
_BF16 = _RELEASE | {"precision": "bf16"}
_SMALL = _BF16 | {"batch_size": 2, "rate_decay": 0.6}
_THIN = _SMALL | {"spn_width": 16}
_ADAPTERS = _THIN | {"adapter_rank": 4, "learning_rate": 3e-3}
WAYS = {
    "release": Way("the release's order of work", "release", _RELEASE),
    "bank": Way("content bank, constants once, one UNet call", train=_RELEASE, timed=True),
    "bf16": Way("bf16", train=_BF16, timed=True),
    "batch": Way("two contents an update, falling rate", train=_SMALL),
    "spn": Way("SPN of 16 channels", train=_THIN),
    "adapters": Way("adapters of rank 4", train=_ADAPTERS),
    "warm": Way("warm start at the two nearest styles", train=_ADAPTERS, warm=True),
}
"""Each adds one lever to the one before."""


def pictures(folder: Path, count: int) -> dict[str, Image.Image]:
    """The references; then their upper left two thirds; then with red and blue exchanged."""
    whole = {path.stem: decode_image(path.read_bytes()) for path in sorted(folder.glob("*.jpg"))}
    found = dict(whole)
    for name, picture in whole.items():
        found[f"{name}-crop"] = picture.crop((0, 0, picture.width * 2 // 3, picture.height * 2 // 3))
    for name, picture in whole.items():
        found[f"{name}-recoloured"] = Image.merge("RGB", picture.convert("RGB").split()[::-1])
    return dict([*found.items()][:count])
