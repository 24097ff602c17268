"""Finetuning one style (Eq. 12-14): eps_B and the SPN, an optimizer step at every reverse step.

Shapes: B contents, S image size, D width of z_sem, E width of a CLIP embedding. A batch holds the contents first and
the reference's photographic counterpart last, so that both branches share one UNet call.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from osasis import losses
from osasis.base import Base
from osasis.content import Content, encode_content
from osasis.diffusion import Schedule, ddim_move, predict_x0
from osasis.errors import NotFinite
from osasis.networks.layers import zeroed
from osasis.networks.perceptual import PerceptualDistance
from osasis.networks.spn import PlainSPN, TimeSPN
from osasis.networks.unet import UNet
from osasis.precision import computing
from osasis.seeding import stable_seed
from osasis.settings import TrainConfig

EncodeImage = Callable[[Tensor], Tensor]
"""A CLIP image tower: [B, 3, S, S] in [-1, 1] → [B, E]."""


@dataclass(frozen=True)
class Reference:
    """The style image with its photographic counterpart and their constants, computed once per style.

    style, photo [1, 3, S, S]; z_style = Enc(style), z_photo = Enc(photo) [1, D]; x_t0 [1, 3, S, S], the photo's
    structural code.
    """

    style: Tensor
    photo: Tensor
    z_style: Tensor
    z_photo: Tensor
    x_t0: Tensor


@torch.no_grad()
def make_reference(base: Base, style: Tensor, photo: Tensor, config: TrainConfig) -> Reference:
    """``style`` I_B_style and ``photo`` I_A_style, [1, 3, S, S] in [-1, 1]."""
    encoded = encode_content(base, photo, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=config.clamp)
    return Reference(style, photo, base.diffae.encoder(style), encoded.z_in, encoded.x_t0)


@dataclass(frozen=True)
class _Targets:
    """CLIP embeddings of one iteration that do not change while it runs, for one CLIP model. [B, E] or [1, E]."""

    content: Tensor
    photo: Tensor
    style: Tensor


class Finetuner:
    """One style in training. Knows nothing of Ray, storage or progress bars.

    Args:
        eps_b: the UNet to finetune; usually a copy of the base's.
        clips: image towers, one or several; their losses are averaged.
        perceptuals: distances for the reconstruction, averaged; needed where its weight is not 0.
    """

    def __init__(
        self,
        eps_b: UNet,
        reference: Reference,
        config: TrainConfig,
        clips: Sequence[EncodeImage],
        perceptuals: Sequence[PerceptualDistance] = (),
    ) -> None:
        if config.weights.recon_perceptual and not perceptuals:
            raise ValueError("recon_perceptual is not 0, and there is no perceptual distance")
        self.config = config
        self.reference = reference
        self.clips = clips
        self.perceptuals = perceptuals
        self.device = reference.style.device
        self.unet = (
            eps_b.to(self.device).to(memory_format=torch.channels_last).requires_grad_(True).train(config.dropout)
        )
        torch.manual_seed(stable_seed(config.seed, "spn"))
        self.spn = (TimeSPN() if config.spn == "time" else PlainSPN()).to(self.device, reference.style.dtype)
        if config.spn_init == "zero":
            zeroed(self.spn.output)
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(self.unet.parameters()), "lr": config.learning_rate},
                {"params": list(self.spn.parameters()), "lr": config.spn_learning_rate},
            ]
        )
        self.schedule = Schedule.ddim(config.decode_steps, eps_b.config.beta_end)
        self.next_iteration = 0
        with torch.no_grad():
            self._reference_embeddings = [(clip(reference.photo), clip(reference.style)) for clip in clips]

    @classmethod
    def from_base(cls, base: Base, reference: Reference, config: TrainConfig) -> "Finetuner":
        """A new style on ``base``, with the base's CLIPs and perceptual distances."""
        perceptuals = base.perceptuals(config.perceptuals) if config.weights.recon_perceptual else []
        unit = config.clip_embeddings == "unit"
        clips = [partial(clip.encode_image, feed=config.clip_input, unit=unit) for clip in base.clips(config.clips)]
        return cls(copy.deepcopy(base.diffae.unet), reference, config, clips, perceptuals)

    def iteration(self, content: Content) -> list[dict[str, float]]:
        """One outer iteration: a reverse trajectory with an update at every step. Losses of each step.

        Dropout is seeded by the iteration, so that a resumed run repeats it.

        Raises:
            NotFinite: a loss or gradient is NaN or infinite; that update was not made.
        """
        torch.manual_seed(stable_seed(self.config.seed, "dropout", self.next_iteration))
        targets = self._targets(content)
        x = torch.cat([content.x_t0, self.reference.x_t0])
        steps = []
        for i in self._decode_indices():
            x, terms = self.update(x, i, content, targets)
            steps.append(terms)
        self.next_iteration += 1
        return steps

    def update(
        self, x_t: Tensor, i: int, content: Content, targets: Sequence[_Targets]
    ) -> tuple[Tensor, dict[str, float]]:
        """One optimizer step at respaced step ``i``. ``x_t`` [B+1, 3, S, S] → (x_{t-1}, detached; loss terms)."""
        alpha_bar = self.schedule.alpha_bar_at(i)
        x0, x_in = self.predict(x_t, i, content)
        terms = self.terms(x0[:-1], x0[-1:], targets)
        weights = self.config.weights.model_dump()
        total = sum((weights[name] * value for name, value in terms.items()), torch.zeros((), device=self.device))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        numbers = {name: value.item() for name, value in terms.items()} | {"total": total.item()}
        if not math.isfinite(numbers["total"]):
            raise NotFinite(f"iteration {self.next_iteration}, step {i}: {numbers}")
        self.optimizer.step()
        return ddim_move(x_in, x0, alpha_bar, self.schedule.alpha_bar_at(i - 1)).detach(), numbers

    def predict(self, x_t: Tensor, i: int, content: Content) -> tuple[Tensor, Tensor]:
        """Predicted x0 of both branches and the x_t it was predicted from, with the SPN added (Eq. 13)."""
        c = self.config
        batch = len(x_t)
        step = torch.full((batch,), i, dtype=torch.long, device=self.device)
        structure = self.spn(torch.cat([content.photos, self.reference.photo]), step)
        weight = torch.full((batch, 1, 1, 1), c.lambda_spn, device=self.device, dtype=x_t.dtype)
        if c.spn_style == "one":
            weight[-1] = 1.0
        x_in = x_t + weight * structure
        z_last = self.reference.z_photo if c.style_condition == "photo" else self.reference.z_style
        with computing(c.precision, self.device):
            eps = self.unet(x_in, self.schedule.t(i, batch, self.device), torch.cat([content.z_in, z_last]))
        return predict_x0(x_in, eps.to(x_in.dtype), self.schedule.alpha_bar_at(i), c.clamp), x_in

    def terms(self, content_x0: Tensor, style_x0: Tensor, targets: Sequence[_Targets]) -> dict[str, Tensor]:
        """Every loss term with a weight, unweighted (Eq. 12, 14). ``content_x0`` [B, …], ``style_x0`` [1, …]."""
        weights = self.config.weights
        reconstruct = losses.clip_cosine if self.config.clip_reconstruction == "cosine" else losses.clip_l1
        terms: dict[str, list[Tensor]] = {}
        for clip, known in zip(self.clips, targets, strict=True):
            stylized, rebuilt = clip(torch.cat([content_x0, style_x0])).split([len(content_x0), 1])
            if weights.cross_domain:
                loss = losses.directional(known.photo, known.style, known.content, stylized)
                terms.setdefault("cross_domain", []).append(loss)
            if weights.in_domain:
                loss = losses.directional(known.photo, known.content, known.style, stylized)
                terms.setdefault("in_domain", []).append(loss)
            if weights.recon_clip:
                terms.setdefault("recon_clip", []).append(reconstruct(rebuilt, known.style))
        if weights.recon_l1:
            terms["recon_l1"] = [(style_x0 - self.reference.style).abs().mean()]
        if weights.recon_perceptual:
            terms["recon_perceptual"] = [
                distance(style_x0, self.reference.style).mean() for distance in self.perceptuals
            ]
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    @torch.no_grad()
    def _targets(self, content: Content) -> list[_Targets]:
        return [
            _Targets(clip(content.photos), *embedded)
            for clip, embedded in zip(self.clips, self._reference_embeddings, strict=True)
        ]

    def _decode_indices(self) -> list[int]:
        return decode_indices(self.schedule, self.config.t0_ratio, matched=self.config.matched_t0)

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beyond the constructor's arguments; tensors and numbers only."""
        return {
            "unet": self.unet.state_dict(),
            "spn": self.spn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "next_iteration": self.next_iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.unet.load_state_dict(state["unet"])
        self.spn.load_state_dict(state["spn"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.next_iteration = state["next_iteration"]


def decode_indices(schedule: Schedule, t0_ratio: float, *, matched: bool) -> list[int]:
    """Respaced steps from t0 down to 0.

    The official release starts one step below t0 although encoding ended at t0; ``matched`` starts at t0 itself.
    """
    start = len(schedule) - int(len(schedule) * (1 - t0_ratio))
    return list(reversed(range(start + 1 if matched else start)))
