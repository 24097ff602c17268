"""Moving a trained UNet to a noise schedule of another length of reach, before it is trained on."""

import numpy as np
import torch
from torch import Tensor

from osasis.diffusion import T, linear_betas
from osasis.networks.layers import timestep_embedding
from osasis.networks.unet import UNetConfig

_RIDGE = 1e-4


def retimed(weights: dict[str, Tensor], before: UNetConfig, after: UNetConfig, prefix: str = "") -> dict[str, Tensor]:
    """Weights of a UNet of ``before`` that meet each noise level of ``after``'s schedule as they met it in their own.

    The first layer of the time embedding is refitted (ridge regression) to what it gave at the timestep of equal
    noise. Sinusoids do not stretch exactly: training corrects the rest.

    Args:
        weights: the UNet's, or those of a network that holds it under ``prefix``.
        before: the UNet's configuration so far.
        after: the same but for ``beta_end``.
        prefix: such as "unet.", for a DiffAE.
    """
    if before.beta_end == after.beta_end:
        return weights
    names = [f"{prefix}time_embed.0.{name}" for name in ("weight", "bias")]
    weight, bias = (weights[name].double() for name in names)
    level_before, level_after = (
        np.log((1 - linear_betas(beta_end=c.beta_end)).cumprod(0).numpy()) for c in (before, after)
    )
    same_noise = np.interp(-level_after, -level_before, np.arange(T))  # beyond the end of the old process: its end
    wanted = _sinusoids(torch.from_numpy(same_noise), weight.shape[1]) @ torch.cat([weight, bias[:, None]], 1).T
    given = _sinusoids(torch.arange(T), weight.shape[1])
    penalty = _RIDGE * T * torch.eye(given.shape[1], dtype=torch.float64)
    fitted = torch.linalg.solve(given.T @ given + penalty, given.T @ wanted).T
    return weights | {names[0]: fitted[:, :-1].float().contiguous(), names[1]: fitted[:, -1].float().contiguous()}


def _sinusoids(t: Tensor, dim: int) -> Tensor:
    """The time embedding's input and a constant: [N] → [N, dim + 1], float64."""
    return torch.cat([timestep_embedding(t, dim).double(), torch.ones(len(t), 1, dtype=torch.float64)], 1)
