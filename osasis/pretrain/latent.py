"""Pretraining of the latent prior on the z_sem of an image set."""

import torch
from torch import Tensor, nn

from osasis.diffusion import T, constant_betas
from osasis.networks.latent_prior import LatentPrior
from osasis.pretrain.trainer import PretrainConfig, Trainer, Wrap


class LatentLoss(nn.Module):
    """L1 of the predicted noise on normalized latents, DiffAE's loss for its prior."""

    alpha_bar: Tensor

    def __init__(self, network: LatentPrior) -> None:
        super().__init__()
        self.network = network
        alpha_bar = (1 - constant_betas(network.config.beta)).cumprod(0).float()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    def forward(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``z``, ``noise``: [B, D]; ``t``: [B] → scalar."""
        level = self.alpha_bar[t][:, None]
        predicted = self.network(level.sqrt() * z + (1 - level).sqrt() * noise, t)
        return (predicted.float() - noise).abs().mean()


class LatentTrainer(Trainer):
    """Trains the latent prior.

    Args:
        z: [N, D], the z_sem of the image set; normalized here to mean 0 and deviation 1 per channel.
    """

    def __init__(
        self, network: LatentPrior, z: Tensor, config: PretrainConfig, device: str = "cpu", wrap: Wrap = lambda m: m
    ) -> None:
        super().__init__(LatentLoss(network), config, device, wrap)
        self.mean, self.std = z.mean(0), z.std(0).clamp_min(1e-6)
        self.z = (z - self.mean) / self.std

    def draw(self, step: int, places: range) -> tuple[Tensor, ...]:
        drawn = []
        for rng in (self.rng(step, place) for place in places):
            z = self.z[int(torch.randint(len(self.z), (), generator=rng))]
            drawn.append((z, torch.randn(z.shape, generator=rng), torch.randint(T, (), generator=rng)))
        z, noise, t = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        return z, noise, t

    @property
    def averaged(self) -> LatentPrior:
        """The network with its averaged weights, the ones a base keeps."""
        return self.ema.network  # type: ignore[return-value]
