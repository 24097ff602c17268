"""How far bf16 is from float32: ``python benchmarks/precision.py``.

A style is trained from the same seed in both precisions, and the same portraits are stylized in both with the float32
style. Printed: the losses' difference, PSNR between the stylized pictures (against 255 levels), and both times.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from osasis.base import Base, bundled_bases, load_base
from osasis.checkpoint import Style
from osasis.image import decode_image, fit, to_tensor
from osasis.precision import choose_device
from osasis.settings import StylizeConfig, train_config
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="default: the first GPU, or else the CPU")
    parser.add_argument("--style", type=Path, default=SAMPLES / "styles" / "van-gogh-1889.jpg")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--portraits", type=int, default=8)
    flags = parser.parse_args()
    device = str(choose_device(flags.device))
    folder = bundled_bases()["mini64"]
    bases = {precision: load_base(folder, device, precision=precision) for precision in ("float32", "bf16")}  # type: ignore[arg-type]
    trained = {precision: train(bases["float32"], flags.style, flags.iterations, precision) for precision in bases}
    print(f"{device}, {flags.iterations} iterations of training, {flags.portraits} portraits")
    for precision, (_, losses, seconds) in trained.items():
        print(f"training {precision}: last loss {losses[-1]:.4f}, {seconds:.1f} s")
    gaps = [abs(a - b) / abs(a) for a, b in zip(trained["float32"][1], trained["bf16"][1], strict=True)]
    print(f"loss, relative difference: largest {max(gaps):.2%}, last {gaps[-1]:.2%}")
    images = portraits(bases["float32"], flags.portraits)
    style, results = trained["float32"][0], {}
    for precision, base in bases.items():
        start = time.perf_counter()
        results[precision] = render(base, style, images, precision)
        print(f"stylizing {precision}: {time.perf_counter() - start:.1f} s")
    print(f"float32 style, bf16 against float32 stylization: PSNR {psnr(results['float32'], results['bf16'])}")
    other = render(bases["float32"], trained["bf16"][0], images, "float32")
    print(f"bf16-trained against float32-trained style: PSNR {psnr(results['float32'], other)}")


def train(base: Base, picture: Path, iterations: int, precision: str) -> tuple[Style, list[float], float]:
    """(style, total loss of each iteration, seconds)."""
    config = train_config("official", base.spec.train_defaults, {"iterations": iterations, "precision": precision})
    square, _ = fit(decode_image(picture.read_bytes()), base.image_size, config.fit)
    training = StyleTraining(base, to_tensor(square)[None], config)
    start = time.perf_counter()
    losses = [step["total"] for step in training.run()]
    return training.style("measured", "official"), losses, time.perf_counter() - start


@torch.inference_mode()
def render(base: Base, style: Style, images: Tensor, precision: str) -> Tensor:
    config = StylizeConfig(precision=precision)  # type: ignore[arg-type]
    return stylize(style, encode(base, images, encoding_for(style, config)), config)


def portraits(base: Base, count: int) -> Tensor:
    paths = sorted((SAMPLES / "portraits").glob("*.jpg"))[:count]
    squares = [to_tensor(fit(decode_image(path.read_bytes()), base.image_size)[0]) for path in paths]
    return torch.stack(squares).to(base.device)


def psnr(a: Tensor, b: Tensor) -> str:
    """Of images [B, 3, S, S] in [-1, 1]."""
    values = 10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)))
    return f"{values.mean():.1f} dB (worst {values.min():.1f})"


if __name__ == "__main__":
    main()
