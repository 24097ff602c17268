"""Content photographs for finetuning: drawn from the base or given, encoded once for all styles of a base."""

from dataclasses import dataclass

import torch
from torch import Tensor

from osasis.base import Base
from osasis.diffusion import (
    Schedule,
    asked_steps,
    constant_betas,
    ddim_decode,
    ddim_encode,
    ddim_timesteps,
    last,
    sparse_ddim,
)
from osasis.image import from_levels, to_levels
from osasis.networks.latent_prior import LatentPrior
from osasis.seeding import generator


@dataclass(frozen=True)
class Content:
    """Photographs of domain A with what finetuning needs of them.

    photos [B, 3, S, S] in [-1, 1]; z_in [B, D]; x_t0 [B, 3, S, S], their structural codes.
    """

    photos: Tensor
    z_in: Tensor
    x_t0: Tensor

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, indices: Tensor) -> "Content":
        return Content(self.photos[indices], self.z_in[indices], self.x_t0[indices])


@torch.no_grad()
def sample_latent(base: Base, noise: Tensor, steps: int = 200) -> Tensor:
    """A normalized latent from the latent prior by DDIM. ``noise`` [B, D] → [B, D]."""
    return latent_trajectory_end(base.latent_prior[0], noise, steps)


def sample_z(base: Base, noise: Tensor, steps: int = 200) -> Tensor:
    """z_sem from the latent prior. ``noise`` [B, D] → [B, D]."""
    _, mean, std = base.latent_prior
    return sample_latent(base, noise, steps) * std + mean


@torch.no_grad()
def latent_trajectory_end(prior: LatentPrior, noise: Tensor, steps: int = 200) -> Tensor:
    """:func:`sample_latent` for a prior that is not part of a base."""
    schedule = Schedule.spaced(constant_betas(prior.config.beta), ddim_timesteps(steps))
    return last((z for z, _ in ddim_decode(noise, prior, schedule, clamp=False)), noise)


@torch.no_grad()
def draw_photos(base: Base, noise: Tensor, z_noise: Tensor, *, steps: int = 20, latent_steps: int = 200) -> Tensor:
    """Photographs without a data set: latent prior, then reverse DiffAE.

    ``noise`` [B, 3, S, S], ``z_noise`` [B, D], both standard normal → [B, 3, S, S].
    """
    z = sample_z(base, z_noise, latent_steps)
    trajectory = ddim_decode(noise, lambda x, t: base.eps(x, t, z), base.ddim(steps))
    return last((x for x, _ in trajectory), noise)


@torch.no_grad()
def encode_content(
    base: Base, photos: Tensor, *, steps: int, t0_ratio: float, clamp: bool = True, forwards: int | None = None
) -> Content:
    """z_in = Enc(I) and the structural code x_t0 by forward DDIM under eps_A (Eq. 7).

    ``photos`` [B, 3, S, S] in [-1, 1]; ``steps`` over all of T, of which those up to ``t0_ratio`` are done. With
    ``forwards``, x_t0 is found by so many forwards of the network.
    """
    z_in = base.diffae.encoder(photos)
    schedule = base.ddim(steps)
    stop = schedule.steps_to(t0_ratio)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return base.eps(x, t, z_in)

    if forwards is not None and forwards < stop:
        steps_up = range(stop + 1)
        x_t0 = sparse_ddim(photos, eps, schedule, steps_up, asked_steps(steps_up[:-1], forwards), clamp=clamp)
        return Content(photos, z_in, x_t0)
    return Content(photos, z_in, last(ddim_encode(photos, eps, schedule, stop, clamp=clamp), photos))


def encode_in_batches(
    base: Base, photos: Tensor, batch_size: int, *, steps: int, t0_ratio: float, clamp: bool
) -> Content:
    """:func:`encode_content` of many photographs, ``batch_size`` at a time."""
    parts = [
        encode_content(base, part.to(base.device), steps=steps, t0_ratio=t0_ratio, clamp=clamp)
        for part in photos.split(batch_size)
    ]
    return Content(*(torch.cat([getattr(p, name) for p in parts]) for name in ("photos", "z_in", "x_t0")))


class ContentBank:
    """A fixed set of encoded photographs, drawn from at random; 45 of every 75 UNet forwards of the plain loop.

    Every style of a base shares it: encoding content never touches the style.
    """

    def __init__(self, content: Content, seed: int) -> None:
        self.content = content
        self.seed = seed

    def indices(self, iteration: int, batch_size: int) -> Tensor:
        """Which photographs iteration ``iteration`` takes: [batch_size], without repeats where the bank allows."""
        order = torch.randperm(len(self.content), generator=generator(self.seed, "content", iteration))
        return order[torch.arange(batch_size) % len(order)]


def stored_bank(base: Base, *, steps: int, t0_ratio: float, clamp: bool, batch_size: int = 8) -> Content | None:
    """The bundle's bank, re-encoded if it was made with other settings; None if the bundle has none."""
    tensors = base.bank_tensors
    if not tensors:
        return None
    photos = from_levels(tensors["photos"].to(base.device))
    made_with = (int(tensors["steps"]), int(tensors["t0_per_mille"]), bool(tensors["clamp"]))
    if made_with != (steps, round(1000 * t0_ratio), clamp):
        return encode_in_batches(base, photos, batch_size, steps=steps, t0_ratio=t0_ratio, clamp=clamp)
    z_in, x_t0 = (tensors[name].to(base.device).float() for name in ("z_in", "x_t0"))
    return Content(photos, z_in, x_t0)


def bank_part(content: Content, *, steps: int, t0_ratio: float, clamp: bool) -> dict[str, Tensor]:
    """A bank as the ``content_bank`` part of a bundle; photographs are kept in 8 bits."""
    return {
        "photos": to_levels(content.photos).cpu(),
        "z_in": content.z_in.cpu(),
        "x_t0": content.x_t0.cpu(),
        "steps": torch.tensor(steps),
        "t0_per_mille": torch.tensor(round(1000 * t0_ratio)),
        "clamp": torch.tensor(clamp),
    }
