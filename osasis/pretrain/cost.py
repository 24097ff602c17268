"""What a training step costs, found without doing it: networks and batches on the meta device hold no numbers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from osasis.networks.clip import ClipEncoder
from osasis.networks.diffae import DiffAE
from osasis.networks.latent_prior import LatentPrior
from osasis.networks.unet import UNet
from osasis.pretrain import captions
from osasis.pretrain.clip import ContrastiveLoss
from osasis.pretrain.denoising import DenoisingLoss
from osasis.pretrain.latent import LatentLoss
from osasis.pretrain.recipe import PartName, Recipe
from osasis.pretrain.trainer import PretrainConfig

_IMAGES = 64
"""Size of the batch that is counted; costs are proportional."""


@dataclass(frozen=True)
class Cost:
    """Of one training step of a network, forward and backward."""

    parameters: int
    flops_per_image: float
    """Multiplications and additions of matrix products, convolutions and attention."""
    activation_bytes_per_image: float
    """Kept for the backward pass, in float32."""

    def memory(self, config: PretrainConfig, world: int) -> float:
        """Bytes of one worker: weights, gradients, Adam's two moments and the average, and activations."""
        half = 0.5 if config.precision == "bf16" else 1.0
        return 20 * self.parameters + half * self.activation_bytes_per_image * config.share(world)


def training_cost(recipe: Recipe, part: PartName) -> Cost:
    """Cost of training one part."""
    size, b = recipe.image_size, _IMAGES
    with torch.device("meta"):
        images, t = torch.empty(b, 3, size, size), torch.zeros(b, dtype=torch.long)
        match part:
            case "diffae":
                return _cost(DenoisingLoss(DiffAE(recipe.unet, recipe.encoder)), (images, images, t))
            case "photo_prior":
                return _cost(DenoisingLoss(UNet(recipe.photo_prior)), (images, images, t))
            case "latent_prior":
                z = torch.empty(b, recipe.latent_prior.channels)
                return _cost(LatentLoss(LatentPrior(recipe.latent_prior)), (z, z, t))
            case "clip":
                clip, contrasts = ClipEncoder(recipe.clip), sum(map(len, captions.CONTRASTED.values()))
                images = torch.empty(b, 3, clip.image_size, clip.image_size)
                tokens = torch.zeros(b + contrasts, clip.model.context_length, dtype=torch.long)
                labels = torch.zeros(b, len(captions.CONTRASTED), dtype=torch.long)
                loss = ContrastiveLoss(clip, recipe.clip_training.details)
                return _cost(loss, (images, tokens[:b], tokens[b:], labels))


def _cost(module: nn.Module, batch: tuple[Tensor, ...]) -> Cost:
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Tensor] = {}  # by storage: views of one tensor are kept once

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in weights:
            kept[storage] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = module(*batch)
        loss.backward()
    return Cost(
        sum(p.numel() for p in module.parameters()),
        counter.get_total_flops() / _IMAGES,
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / _IMAGES,
    )


def matmul_rate(device: str, dtype: torch.dtype, side: int = 1024, seconds: float = 0.5) -> float:
    """FLOPs per second of square matrix products on this machine, with the threads that torch uses now."""
    a = torch.randn(side, side, device=device).to(dtype)
    a @ a
    count, spent = 0, 0.0
    while spent < seconds:
        spent += timed(lambda: a @ a, device)
        count += 1
    return 2 * side**3 * count / spent


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that ``work`` takes: on a CPU those of each thread, so that other processes do not count."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    work()
    return (time.process_time() - start) / torch.get_num_threads()
