"""What the parts that compute pictures share: base, photographs and a finetuned style of the samples."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from osasis.base import Base, bundled_bases, load_base
from osasis.checkpoint import Style, load_style
from osasis.image import decode_image, fit, to_tensor
from osasis.precision import Precision
from osasis.settings import train_config
from osasis.style_training import StyleTraining

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
REFERENCE = "van-gogh-1889.jpg"


@dataclass(frozen=True)
class Studio:
    """``photographs`` [B, 3, S, S]; ``style``: a checkpoint."""

    photographs: Tensor
    style: Path

    def open(self, precision: Precision = "float32") -> tuple[Base, Style]:
        base = load_base(bundled_bases()["mini64"], "cpu", precision=precision)
        return base, load_style(self.style, base)


def studio(photographs: int, folder: Path, style: Path | None) -> Studio:
    """``style``: a checkpoint on mini64; None: one is trained first, which takes a few minutes of one core."""
    torch.set_num_threads(1)
    base = load_base(bundled_bases()["mini64"], "cpu")
    files = sorted((SAMPLES / "portraits").iterdir())[:photographs]
    images = torch.stack([_picture(path, base.image_size) for path in files])
    if style is None:
        reference = _picture(SAMPLES / "styles" / REFERENCE, base.image_size)
        training = StyleTraining(base, reference[None], train_config("official", base.spec.train_defaults))
        for _ in training.run():
            pass
        style = folder / "style.safetensors"
        style.write_bytes(training.checkpoint("reference", "official"))
    return Studio(images, style)


def _picture(path: Path, size: int) -> Tensor:
    return to_tensor(fit(decode_image(path.read_bytes()), size)[0])
