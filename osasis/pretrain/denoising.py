"""Pretraining of the two image networks: DiffAE, and the unconditional photo prior."""

import numpy as np
import torch
from torch import Tensor, nn

from osasis.diffusion import T, linear_betas
from osasis.networks.diffae import DiffAE
from osasis.networks.unet import UNet
from osasis.pretrain.crops import Augmentation, CropSampler, ImageSet
from osasis.pretrain.trainer import PretrainConfig, Trainer, Wrap


class DenoisingLoss(nn.Module):
    """Mean squared error of the predicted noise, DiffAE's training loss (and DDPM's)."""

    alpha_bar: Tensor
    weight: Tensor

    def __init__(self, network: DiffAE | UNet, noisy_weight: float = 1.0, p2_gamma: float = 0.0) -> None:
        super().__init__()
        self.network = network
        unet = network.unet if isinstance(network, DiffAE) else network
        alpha_bar = (1 - linear_betas(beta_end=unet.config.beta_end)).cumprod(0).float()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        weight = ((1 - alpha_bar) / alpha_bar).clamp(1, noisy_weight) * (1 - alpha_bar) ** p2_gamma  # 1 / (1 + SNR)
        self.register_buffer("weight", weight / weight.mean(), persistent=False)

    def forward(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x0``, ``noise``: [B, 3, S, S]; ``t``: [B] → scalar."""
        level = self.alpha_bar[t][:, None, None, None]
        x_t = level.sqrt() * x0 + (1 - level).sqrt() * noise
        if isinstance(self.network, DiffAE):
            return self._weighted(self.network(x0, x_t, t).float(), noise, t)
        # With learned variance, its half of the output is trained by the variational bound.
        output = self.network(x_t, t).float()
        eps = output[:, :3]
        loss = self._weighted(eps, noise, t)
        if output.shape[1] == 6:
            loss = loss + 1e-3 * T * variational_bound(x0, x_t, t, eps.detach(), output[:, 3:], self.alpha_bar).mean()
        return loss

    def _weighted(self, eps: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return (self.weight[t] * (eps - noise).square().mean((1, 2, 3))).mean()


def variational_bound(x0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor, v: Tensor, alpha_bar: Tensor) -> Tensor:
    """KL between q(x_{t-1} | x_t, x_0) and the model's Gaussian, bits per dimension (Improved DDPM, section 3.1).

    The decoder term at t = 0 is left at the same Gaussian form: it only trains the last step's variance, which
    sampling does not use. Returns [B].
    """

    def at(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    previous = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
    level, level_prev = at(alpha_bar[t]), at(previous[t])
    beta = 1 - level / level_prev
    posterior = (beta * (1 - level_prev) / (1 - level)).clamp_min(1e-20)
    log_posterior = torch.where(at(t) == 0, at((beta_floor(alpha_bar)).expand_as(t)), posterior.log())
    fraction = (v + 1) / 2
    log_variance = fraction * beta.log() + (1 - fraction) * log_posterior
    x0_predicted = ((x_t - (1 - level).sqrt() * eps) / level.sqrt()).clamp(-1, 1)
    mean_gap = beta * level_prev.sqrt() / (1 - level) * (x0 - x0_predicted)
    kl = 0.5 * (
        log_variance
        - log_posterior
        - 1
        + (log_posterior - log_variance).exp()
        + mean_gap.square() * (-log_variance).exp()
    )
    return kl.flatten(1).mean(1) / np.log(2.0)


def beta_floor(alpha_bar: Tensor) -> Tensor:
    """Log of the posterior variance of step 1, which stands in for step 0's zero."""
    beta_1 = 1 - alpha_bar[1] / alpha_bar[0]
    return (beta_1 * (1 - alpha_bar[0]) / (1 - alpha_bar[1])).log()


class DenoisingTrainer(Trainer):
    """Trains a DiffAE, or an unconditional UNet, on crops of an image set."""

    def __init__(
        self,
        network: DiffAE | UNet,
        images: ImageSet,
        config: PretrainConfig,
        device: str = "cpu",
        wrap: Wrap = lambda m: m,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(DenoisingLoss(network, config.noisy_weight, config.p2_gamma), config, device, wrap)
        unet = network.unet if isinstance(network, DiffAE) else network
        self.crops = CropSampler(images, unet.config.image_size, augment)

    def draw(self, step: int, places: range) -> tuple[Tensor, ...]:
        drawn = []
        for rng in (self.rng(step, place) for place in places):
            view = self.crops.view(int(torch.randint(len(self.crops), (), generator=rng)), rng)
            drawn.append((view, torch.randn(view.shape, generator=rng), torch.randint(T, (), generator=rng)))
        x0, noise, t = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        x0, noise = (x.contiguous(memory_format=torch.channels_last) for x in (x0, noise))
        return x0, noise, t

    @property
    def averaged(self) -> DiffAE | UNet:
        """The network with its averaged weights, the ones a base keeps."""
        return self.ema.network  # type: ignore[return-value]


def warm_start(photo_prior: UNet, trained: UNet) -> bool:
    """Start an unconditional UNet from a DiffAE's: every weight of equal name; the noise half of the output.

    Returns whether it did: networks of other sizes have blocks of other meaning under the same names.
    """

    def sizes(unet: UNet) -> object:
        return unet.config.model_copy(update={"cond_channels": None, "learn_sigma": False, "dropout": 0.0})

    if sizes(photo_prior) != sizes(trained):
        return False
    own, given = photo_prior.state_dict(), trained.state_dict()
    for name, tensor in own.items():
        if name in given:
            tensor[: len(given[name])].copy_(given[name])
    photo_prior.load_state_dict(own)
    return True
