"""Finetuning one style (Eq. 12-14): eps_B and the SPN, an optimizer step at every reverse step.

Shapes: B contents, S image size, D width of z_sem, E width of a CLIP embedding. A batch holds the contents first and
the reference's photographic counterpart last, so that both branches share one UNet call.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from osasis import losses
from osasis.base import Base
from osasis.content import Content, encode_content
from osasis.diffusion import Schedule, ddim_move, predict_x0
from osasis.errors import NotFinite
from osasis.memory import MemoryUse, within_memory
from osasis.networks.adapters import adapt, trained_parameters
from osasis.networks.clip import ClipEncoder
from osasis.networks.layers import zeroed
from osasis.networks.perceptual import ClipPerceptual, PerceptualDistance
from osasis.networks.spn import make_spn
from osasis.networks.unet import UNet
from osasis.precision import computing
from osasis.ranks import ALONE, Ranks
from osasis.seeding import generator, stable_seed
from osasis.settings import TrainConfig

EncodeImage = Callable[[Tensor], Tensor]
"""A CLIP image tower: [B, 3, S, S] in [-1, 1] → [B, E]."""

Maps = list[Tensor]
"""Feature maps [B, C, h, w] of some images, from fine to coarse."""

_COLOR_DIRECTIONS = 16
_DEEP = -2
"""Self-similarity is held on the two coarsest maps: finer ones would hold the photograph's texture."""


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
class StatisticsEmbedding:
    """The statistics that a CLIP's image tower projects, as an :data:`EncodeImage`."""

    clip: ClipEncoder
    unit: bool

    def __call__(self, images: Tensor, maps: Maps | None = None) -> Tensor:
        return self.clip.statistics(images, maps, unit=self.unit)


@dataclass(frozen=True)
class _Embeddings:
    """What does not change while an iteration runs, for one CLIP model. [B, E] or [1, E]."""

    content: Tensor
    photo: Tensor
    style: Tensor


@dataclass(frozen=True)
class _Targets:
    """What the stylized contents of one iteration are compared with."""

    photos: Tensor
    maps: list[Maps]
    """Each perceptual network's, of the photographs; empty: no term asks for them."""
    embedded: list[_Embeddings]

    def __getitem__(self, rows: Tensor) -> "_Targets":
        """Of some of the contents."""
        maps = [[level[rows] for level in network] for network in self.maps]
        embedded = [replace(known, content=known.content[rows]) for known in self.embedded]
        return _Targets(self.photos[rows], maps, embedded)


class Finetuner:
    """One style in training. Knows nothing of Ray, storage or progress bars.

    Args:
        eps_b: the UNet to finetune; usually a copy of the base's.
        clips: image towers, one or several; their losses are averaged.
        perceptuals: distances for the reconstruction, and the networks of the terms on feature maps, averaged; needed
            where the weight of one of them is not 0.
        ranks: the processes that train it together.
    """

    def __init__(
        self,
        eps_b: UNet,
        reference: Reference,
        config: TrainConfig,
        clips: Sequence[EncodeImage],
        perceptuals: Sequence[PerceptualDistance] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        if config.weights.perceptual_terms and not perceptuals:
            raise ValueError(f"{config.weights.perceptual_terms[0]} is not 0, and there is no perceptual distance")
        self.config, self.ranks = config, ranks
        self.reference = reference
        self.clips = clips
        self.perceptuals = perceptuals
        self.device = reference.style.device
        self.unet = eps_b.to(self.device).to(memory_format=torch.channels_last).train(config.dropout)
        self.memory_use = MemoryUse(config.recompute, config.micro_batch)
        if config.adapter_rank:
            adapt(self.unet, config.adapter_rank, config.adapter_places, config.seed)
        else:
            self.unet.requires_grad_(True)
        torch.manual_seed(stable_seed(config.seed, "spn"))
        self.spn = make_spn(config.spn, config.spn_width).to(self.device, reference.style.dtype)
        if config.spn_init == "zero":
            zeroed(self.spn.output)
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(trained_parameters(self.unet).values()), "lr": config.learning_rate},
                {"params": list(self.spn.parameters()), "lr": config.spn_learning_rate},
            ],
            fused=True,
        )
        self.schedule = Schedule.ddim(config.decode_steps, eps_b.config.beta_end)
        self.next_iteration = 0
        with torch.no_grad():
            self._style_maps = self._maps(reference.style)
            self._reference_embeddings = [(clip(reference.photo), clip(reference.style)) for clip in clips]
        directions = torch.randn(_COLOR_DIRECTIONS, 3, generator=generator(config.seed, "colors"))
        self._color_directions = F.normalize(directions, dim=1).to(self.device, reference.style.dtype)

    @classmethod
    def from_base(cls, base: Base, reference: Reference, config: TrainConfig, ranks: Ranks = ALONE) -> "Finetuner":
        """A new style on ``base``, with the base's CLIPs and perceptual distances."""
        perceptuals = base.perceptuals(config.perceptuals) if config.weights.perceptual_terms else []
        unit = config.clip_embeddings == "unit"
        clips: list[EncodeImage] = [
            StatisticsEmbedding(clip, unit)
            if config.clip_image == "statistics"
            else partial(clip.encode_image, feed=config.clip_input, unit=unit)
            for clip in (base.clips(config.clips) if config.weights.clip_terms else ())
        ]
        return cls(copy.deepcopy(base.diffae.unet), reference, config, clips, perceptuals, ranks)

    def iteration(self, content: Content) -> list[dict[str, float]]:
        """One outer iteration: a reverse trajectory with an update at every step. Losses of each step.

        Dropout is seeded by the iteration, so that a resumed run repeats it.

        Raises:
            NotFinite: a loss or gradient is NaN or infinite; that update was not made.
        """
        mine = (self.ranks.rank,) if self.ranks.rank else ()  # masks of its own
        torch.manual_seed(stable_seed(self.config.seed, "dropout", self.next_iteration, *mine))
        targets = self._targets(content)
        x = torch.cat([content.x_t0, self.reference.x_t0])
        steps = []
        for i in self._decode_indices():
            x, terms = self.update(x, i, content, targets)
            steps.append(terms)
        self.next_iteration += 1
        return steps

    @torch.no_grad()
    def score(self, content: Content) -> float:
        """The weighted losses of the pictures that ``content`` becomes now, by a whole trajectory without an update."""
        self.unet.eval()
        x0 = x = torch.cat([content.x_t0, self.reference.x_t0])
        for i in self._decode_indices():
            x0, x_in = self.predict(x, i, content)
            x = ddim_move(x_in, x0, self.schedule.alpha_bar_at(i), self.schedule.alpha_bar_at(i - 1))
        self.unet.train(self.config.dropout)
        terms = self.terms(x0[:-1], x0[-1:], self._targets(content))
        score = sum(getattr(self.config.weights, name) * value.item() for name, value in terms.items())
        return self.ranks.said(score)

    def update(self, x_t: Tensor, i: int, content: Content, targets: _Targets) -> tuple[Tensor, dict[str, float]]:
        """One optimizer step at respaced step ``i``. ``x_t`` [B+1, 3, S, S] → (x_{t-1}, detached; loss terms).

        Raises:
            NotFinite: a loss is NaN or infinite; the step was not made.
            torch.OutOfMemoryError: there is not enough for one content.
        """
        use = self.memory_use.of(len(content))
        compute = partial(self._gradients, x_t, i, content, targets)
        (moved, numbers), fits = within_memory(compute, use, self.ranks.any)
        self._sum_over_ranks(moved, numbers)
        if fits != use:
            self.memory_use = fits
        if not math.isfinite(numbers["total"]):
            raise NotFinite(f"iteration {self.next_iteration}, step {i}: {numbers}")
        self._set_rates(i)
        self.optimizer.step()
        return moved, numbers

    def _gradients(
        self, x_t: Tensor, i: int, content: Content, targets: _Targets, use: MemoryUse
    ) -> tuple[Tensor, dict[str, float]]:
        """As :meth:`update`, up to the optimizer's step; of this process's contents, with 0 for x_{t-1} of others'."""
        self.optimizer.zero_grad(set_to_none=True)
        self.unet.recompute = use.recompute
        moved = torch.zeros_like(x_t)
        numbers: dict[str, float] = {}
        for part in self.ranks.share(len(content)).to(self.device).split(use.contents):
            share = len(part) / len(content)
            rows = torch.cat([part, part.new_tensor([len(content)])])  # the style branch goes along, at its share
            x0, x_in = self.predict(x_t[rows], i, content[part])
            terms = self.terms(x0[:-1], x0[-1:], targets[part])
            weighted = (getattr(self.config.weights, name) * value for name, value in terms.items())
            total = sum(weighted, torch.zeros((), device=self.device))
            (share * total).backward()  # type: ignore[no-untyped-call]
            for name, value in (terms | {"total": total}).items():
                numbers[name] = numbers.get(name, 0.0) + share * value.item()
            to = self.schedule.alpha_bar_at(i - 1)
            moved[rows] = ddim_move(x_in, x0, self.schedule.alpha_bar_at(i), to).detach()
        return moved, numbers

    def _sum_over_ranks(self, moved: Tensor, numbers: dict[str, float]) -> None:
        """Make what each process computed of its contents that of all."""
        if self.ranks.count == 1:
            return
        if not self.ranks.is_first:
            moved[-1] = 0  # each has the style branch
        self.ranks.sum(moved)
        self.ranks.sum_gradients([p for group in self.optimizer.param_groups for p in group["params"]])
        sums = self.ranks.sum(torch.tensor(list(numbers.values()), dtype=torch.float64))
        numbers.update(zip(numbers, sums.tolist(), strict=True))

    def _set_rates(self, i: int) -> None:
        """Rates of the update at respaced step ``i``: constant, then falling linearly over the last ``rate_decay``."""
        c, indices = self.config, self._decode_indices()
        done = (self.next_iteration + indices.index(i) / len(indices)) / c.iterations
        factor = min(1.0, (1 - done) / c.rate_decay) if c.rate_decay else 1.0
        for group, rate in zip(self.optimizer.param_groups, (c.learning_rate, c.spn_learning_rate), strict=True):
            group["lr"] = factor * rate

    def predict(self, x_t: Tensor, i: int, content: Content) -> tuple[Tensor, Tensor]:
        """Predicted x0 of both branches and the x_t it was predicted from, with the SPN added (Eq. 13)."""
        c = self.config
        batch = len(x_t)
        step = torch.full((batch,), i, dtype=torch.long, device=self.device)
        photos = torch.cat([content.photos, self.reference.photo]).contiguous(memory_format=torch.channels_last)
        with computing(c.precision, self.device):
            structure = self.spn(photos, step).to(x_t.dtype)
        weight = torch.full((batch, 1, 1, 1), c.lambda_spn, device=self.device, dtype=x_t.dtype)
        if c.spn_style == "one":
            weight[-1] = 1.0
        x_in = x_t + weight * structure
        z_last = self.reference.z_photo if c.style_condition == "photo" else self.reference.z_style
        with computing(c.precision, self.device):
            eps = self.eps(x_in, self.schedule.t(i, batch, self.device), torch.cat([content.z_in, z_last]))
        return predict_x0(x_in, eps.to(x_in.dtype), self.schedule.alpha_bar_at(i), c.clamp), x_in

    def eps(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """eps_B of both branches. ``x`` [B+1, 3, S, S], ``t`` [B+1], ``z`` [B+1, D]."""
        return self.unet(x, t, z)

    def terms(self, content_x0: Tensor, style_x0: Tensor, targets: _Targets) -> dict[str, Tensor]:
        """Every loss term with a weight, unweighted (Eq. 12, 14). ``content_x0`` [B, …], ``style_x0`` [1, …]."""
        weights = self.config.weights
        both = torch.cat([content_x0, style_x0])
        maps = self._maps(both)
        terms = self._clip_terms(both, maps, targets.embedded)
        terms |= self._perceptual_terms(both, maps, targets.maps)
        if weights.recon_l1:
            terms["recon_l1"] = (style_x0 - self.reference.style).abs().mean()
        if weights.style_colors:
            terms["style_colors"] = losses.colors(content_x0, self.reference.style, self._color_directions)
        if weights.edges:
            terms["edges"] = losses.edges(content_x0, targets.photos)
        return terms

    def _perceptual_terms(self, both: Tensor, maps: list[Maps], content: list[Maps]) -> dict[str, Tensor]:
        """The terms on feature maps, means over all perceptual networks. ``both``: as for :meth:`_clip_terms`."""
        weights = self.config.weights
        content_x0, style_x0 = both[:-1], both[-1:]
        terms: dict[str, list[Tensor]] = {}
        for i, distance in enumerate(self.perceptuals):
            if weights.recon_perceptual:
                if maps and isinstance(distance, ClipPerceptual):
                    far = distance.between([m[-1:] for m in maps[i]], self._style_maps[i])
                else:
                    far = distance(style_x0, self.reference.style)
                terms.setdefault("recon_perceptual", []).append(far.mean())
            stylized = [m[:-1] for m in maps[i]] if maps else []
            if weights.style_moments:
                far = losses.moments([content_x0, *stylized], [self.reference.style, *self._style_maps[i]])
                terms.setdefault("style_moments", []).append(far)
            if weights.self_similarity:
                held = losses.self_similarity(stylized[_DEEP:], content[i][_DEEP:], self.config.self_similarity_margin)
                terms.setdefault("self_similarity", []).append(held)
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _clip_terms(self, both: Tensor, maps: list[Maps], targets: Sequence[_Embeddings]) -> dict[str, Tensor]:
        """CLIP's terms, means over all CLIPs. ``both`` [B+1, …]: stylized contents, then the rebuilt reference."""
        weights = self.config.weights
        reconstruct = losses.clip_cosine if self.config.clip_reconstruction == "cosine" else losses.clip_l1
        terms: dict[str, list[Tensor]] = {}
        for clip, known in zip(self.clips, targets, strict=True):
            stylized, rebuilt = self._embedded(clip, both, maps).split([len(both) - 1, 1])
            if weights.cross_domain:
                loss = losses.directional(known.photo, known.style, known.content, stylized)
                terms.setdefault("cross_domain", []).append(loss)
            if weights.in_domain:
                loss = losses.directional(known.photo, known.content, known.style, stylized)
                terms.setdefault("in_domain", []).append(loss)
            if weights.recon_clip:
                terms.setdefault("recon_clip", []).append(reconstruct(rebuilt, known.style))
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _embedded(self, clip: EncodeImage, images: Tensor, maps: list[Maps]) -> Tensor:
        """``clip(images)``; its statistics from a perceptual network's maps, where that is the same network."""
        if isinstance(clip, StatisticsEmbedding):
            for distance, known in zip(self.perceptuals, maps, strict=False):
                if isinstance(distance, ClipPerceptual) and distance.clip is clip.clip:
                    return clip(images, known)
        return clip(images)

    def _maps(self, images: Tensor) -> list[Maps]:
        """Each perceptual network's, where a term beyond the reconstruction is on them; else empty."""
        weights = self.config.weights
        if not (weights.style_moments or weights.self_similarity):
            return []
        return [distance.features(images) for distance in self.perceptuals]

    @torch.no_grad()
    def _targets(self, content: Content) -> _Targets:
        maps = self._maps(content.photos)
        embedded = [
            _Embeddings(self._embedded(clip, content.photos, maps), *known)
            for clip, known in zip(self.clips, self._reference_embeddings, strict=True)
        ]
        return _Targets(content.photos, maps, embedded)

    def _decode_indices(self) -> list[int]:
        return decode_indices(self.schedule, self.config.t0_ratio, matched=self.config.matched_t0)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What is trained."""
        unet = {name: parameter.detach() for name, parameter in trained_parameters(self.unet).items()}
        return {"unet": unet, "spn": self.spn.state_dict()}

    def load_weights(self, weights: dict[str, dict[str, Tensor]]) -> None:
        self.unet.load_state_dict(self.unet.state_dict() | weights["unet"])
        self.spn.load_state_dict(weights["spn"])

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beyond the constructor's arguments; tensors and numbers only."""
        state = {"optimizer": self.optimizer.state_dict(), "next_iteration": self.next_iteration}
        return self.weights() | state | {"memory_use": asdict(self.memory_use)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.next_iteration = state["next_iteration"]
        if "memory_use" in state:  # of a version that had it
            self.memory_use = MemoryUse(**state["memory_use"])


def decode_indices(schedule: Schedule, t0_ratio: float, *, matched: bool) -> list[int]:
    """Respaced steps from t0 down to 0.

    The official release starts one step below t0 although encoding ended at t0; ``matched`` starts at t0 itself.
    """
    start = len(schedule) - int(len(schedule) * (1 - t0_ratio))
    return list(reversed(range(start + 1 if matched else start)))
