"""What the paper's sizes cost on a GPU: ``python -m benchmarks.paper_size``. FFHQ256 with random weights.

An update of one style by settings: seconds, FLOP/s that the UNet reaches, and the most memory. Then a forward, as
stylizing makes them, by precision and batch. With ``--small`` the sizes of a toy, to try the command on a CPU.
"""

import argparse
import copy
import gc
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from osasis.content import Content
from osasis.diffusion import Schedule
from osasis.finetune import Finetuner, Reference, decode_indices
from osasis.networks.clip import ClipConfig, ClipEncoder
from osasis.networks.perceptual import Lpips
from osasis.networks.unet import UNet, UNetConfig
from osasis.precision import Precision, choose_device, computing, exact_float32
from osasis.settings import TrainConfig, train_config

FFHQ256 = UNetConfig(
    image_size=256,
    model_channels=128,
    channel_mult=(1, 1, 2, 2, 4, 4),
    emb_channels=512,
    cond_channels=512,
)
SMALL = FFHQ256.model_copy(update={"image_size": 32, "model_channels": 32, "channel_mult": (1, 2)})
N = TypeVar("N", bound=torch.nn.Module)
_BF16 = {"precision": "bf16"}
_THIN = _BF16 | {"spn_width": 16}
_ADAPTERS = _THIN | {"adapter_rank": 4}
UPDATES: dict[str, dict[str, Any]] = {
    "float32, eight contents (the release's)": {},
    "bf16": _BF16,
    "bf16, SPN of 16 channels": _THIN,
    "the same, adapters of rank 4": _ADAPTERS,
    "the same, micro-batches of two": _ADAPTERS | {"micro_batch": 2},
    "bf16, SPN of 16, micro-batches of four": _THIN | {"micro_batch": 4},
    "bf16, SPN of 16, micro-batches of two": _THIN | {"micro_batch": 2},
    "bf16, SPN of 16, micro-batches of one": _THIN | {"micro_batch": 1},
    "bf16, SPN of 16, recomputed": _THIN | {"recompute": True},
    "bf16, SPN of 16, micro-batches of one, recomputed": _THIN | {"micro_batch": 1, "recompute": True},
    "bf16, SPN of 16, two contents": _THIN | {"batch_size": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="default: the first GPU, or else the CPU")
    parser.add_argument("--small", action="store_true", help="sizes of a toy")
    parser.add_argument("--repeat", type=int, default=3, help="timed calls, after two that are not")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes")
    flags = parser.parse_args()
    device = choose_device(flags.device)
    exact_float32()
    torch.manual_seed(0)
    unet = (
        UNet(SMALL if flags.small else FFHQ256).requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    )
    forward = _flop(unet, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    parameters = sum(p.numel() for p in unet.parameters())
    say(
        f"{name}, PyTorch {torch.__version__}; {parameters / 1e6:.1f} M parameters, {forward / 1e9:.0f} GFLOP a forward"
    )
    say("| an update | s | TFLOP/s | GiB allocated | GiB reserved |\n|---|---|---|---|---|")
    for title, changes in UPDATES.items():
        say(f"| {title} | {_update(unet, train_config('official', changes), forward, flags.repeat)} |")
    if flags.compile:
        cells = _update(unet, train_config("official", _THIN), forward, flags.repeat, compiled=True)
        say(f"| bf16, SPN of 16 channels, compiled | {cells} |")
    say("| a forward | ms a picture | TFLOP/s | GiB allocated | GiB reserved |\n|---|---|---|---|---|")
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        for batch in (1, 8, 32):
            say(f"| {precision}, batch of {batch} | {_forward(unet, batch, precision, forward, flags.repeat)} |")


def _update(unet: UNet, config: TrainConfig, forward: int, repeat: int, *, compiled: bool = False) -> str:
    """Cells of the table; memory counts all that training a style keeps, the networks of the losses included."""
    random = _Random(unet)
    pictures, codes = (config.batch_size, 3, *random.size), (config.batch_size, random.width)
    one, code = (1, *pictures[1:]), (1, random.width)
    reference = Reference(random(*one), random(*one), random(*code), random(*code), random(*one))
    content = Content(random(*pictures), random(*codes), random(*pictures))
    clip = _frozen(ClipEncoder(ClipConfig(name="ViT-B-32-quickgelu")), random.device)
    lpips = _frozen(Lpips("vgg"), random.device)
    tuner = Finetuner(copy.deepcopy(unet), reference, config, [clip.encode_image], [lpips])
    if compiled:
        tuner.unet.compile()
    targets = tuner._targets(content)
    step = decode_indices(Schedule.ddim(config.decode_steps), config.t0_ratio, matched=config.matched_t0)[0]
    x = torch.cat([content.x_t0, reference.x_t0])
    images = (config.batch_size + 1) * 3
    return _measured(lambda: tuner.update(x, step, content, targets), images, images * forward, random.device, repeat)


@torch.no_grad()
def _forward(unet: UNet, batch: int, precision: Precision, forward: int, repeat: int) -> str:
    random = _Random(unet)
    x, z = random(batch, 3, *random.size), random(batch, random.width)
    t = torch.full((batch,), 500, device=random.device)

    def call() -> None:
        with computing(precision, random.device):
            unet.eval()(x, t, z)

    return _measured(call, batch, batch * forward, random.device, repeat, unit=1e3)


class _Random:
    """Random tensors on a network's device, in [-1, 1]."""

    def __init__(self, unet: UNet) -> None:
        self.device = next(unet.parameters()).device
        self.size = (unet.config.image_size,) * 2
        self.width = unet.config.cond_channels or 0
        self._rng = torch.Generator(self.device).manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._rng, device=self.device).clamp(-1, 1)


def _measured(
    call: Callable[[], object], images: int, flop: int, device: torch.device, repeat: int, unit: float = 0
) -> str:
    """Median seconds of a call, or seconds times ``unit`` an image; FLOP/s; GiB. Two calls go before."""
    gc.collect()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    try:
        for _ in range(2 + repeat):
            started = time.perf_counter()
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return "out of memory | | |"
    seconds = sorted(times[2:])[repeat // 2]
    cells = [f"{seconds / images * unit:.2f}" if unit else f"{seconds:.3f}", f"{flop / seconds / 1e12:.1f}"]
    if on_gpu:
        peaks = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        cells += [f"{peak / 2**30:.1f}" for peak in peaks]
    return " | ".join(cells)


def _flop(unet: UNet, device: torch.device) -> int:
    random = _Random(unet)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(random(1, 3, *random.size), torch.zeros(1, dtype=torch.long, device=device), random(1, random.width))
    return counter.get_total_flops()


def _frozen(network: N, device: torch.device) -> N:
    return network.eval().requires_grad_(False).to(device)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
