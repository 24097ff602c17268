"""How good a base is: what its networks lose on the way, what they invent, what they tell apart.

Shapes: B photographs [B, 3, S, S] in [-1, 1], D width of z_sem, E width of a CLIP embedding. They should be
photographs that the base was not trained on.
"""

import torch
from torch import Tensor

from osasis.base import Base
from osasis.diffusion import Schedule, ddim_decode, ddim_encode, last


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures in [-1, 1], whose peak is 2; what lies outside is clamped. [B], dB."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean((1, 2, 3)))


@torch.no_grad()
def round_trips(
    base: Base,
    photos: Tensor,
    noise: Tensor,
    *,
    steps: int = 100,
    decode_steps: int = 50,
    t0_ratio: float = 0.5,
    full: bool = True,
) -> dict[str, Tensor]:
    """The photographs after three journeys through the DiffAE, each [B, 3, S, S].

    ``t0``: encoded to t0, decoded in ``decode_steps`` from a little below t0, as the official release stylizes, but
    without a style. ``z``: decoded from ``noise`` and z_sem alone. ``full``, where asked: encoded to the
    end and decoded from there in ``steps`` each.
    """
    z = base.diffae.encoder(photos)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return base.eps(x, t, z)

    def decoded(x: Tensor, schedule: Schedule, start: int) -> Tensor:
        return last((x for x, _ in ddim_decode(x, eps, schedule, start)), x)

    fine, coarse = base.ddim(steps), base.ddim(decode_steps)
    to_t0 = fine.steps_to(t0_ratio)
    codes = list(ddim_encode(photos, eps, fine, len(fine) if full else to_t0))  # the way to t0 is the same for both
    ends = {"t0": decoded(codes[to_t0 - 1], coarse, coarse.steps_to(t0_ratio))}
    if full:
        ends["full"] = decoded(codes[-1], fine, len(fine))
    return ends | {"z": decoded(noise, coarse, len(coarse))}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two feature sets [N, E] and [M, E], as Gaussians; 0 for equal moments.

    With a network of one's own for features it tracks a training; it compares with no published FID. It falls with
    more samples: compare equal numbers.
    """
    a, b = a.double(), b.double()
    u, v = (x - x.mean(0) for x in (a, b))
    spread = u.square().sum() / (len(a) - 1) + v.square().sum() / (len(b) - 1)
    # tr (S_a S_b)^½ is the sum of the singular values of S_a^½ S_b^½, whatever roots are taken.
    shared = torch.linalg.svdvals(u @ v.T).sum() / ((len(a) - 1) * (len(b) - 1)) ** 0.5
    return float((a.mean(0) - b.mean(0)).square().sum() + spread - 2 * shared)
