"""Training one style from one picture, from the style photo to the finished checkpoint."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from osasis.base import Base, BaseSpec
from osasis.checkpoint import ADAPTER_FORMAT, FORMAT, Style, StyleHeader, dump_style
from osasis.color import colors_of
from osasis.content import Content, ContentBank, draw_photos, encode_in_batches, stored_bank
from osasis.early_stopping import EarlyStopping
from osasis.errors import BaseError
from osasis.finetune import Finetuner, make_reference
from osasis.full_size import Texture
from osasis.networks.adapters import Deltas, deltas_of, merged
from osasis.noise import starting_noise
from osasis.ranks import ALONE, Ranks
from osasis.seeding import generator
from osasis.settings import Preset, TrainConfig
from osasis.style_photo import best_style_photo
from osasis.warm_start import WarmStart, begin_from


class StyleTraining:
    """One style in training, resumable at every iteration. Knows nothing of Ray or storage.

    Args:
        style_image: I_B_style, [1, 3, S, S] in [-1, 1].
        photo: I_A_style, the same shape; None: found by the photo prior (Eq. 9-10).
        state: from :meth:`state_dict` of the run to continue; its style photo is kept.
        photos: photographs to train on, [N, 3, S, S] in [-1, 1]; None: as ``config.content`` says.
        content: photographs that are encoded already, instead.
        start: styles to begin from, at the base without them; a run that is continued has its own.
        texture: the reference's, from its whole picture (:func:`osasis.full_size.texture_of`).
        ranks: the processes that train it together, each with a part of every batch.

    Raises:
        ValueError: there are more processes than contents in a batch.
    """

    def __init__(
        self,
        base: Base,
        style_image: Tensor,
        config: TrainConfig,
        *,
        photo: Tensor | None = None,
        state: dict[str, Any] | None = None,
        photos: Tensor | None = None,
        content: Content | None = None,
        start: WarmStart | None = None,
        texture: Texture = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.base = base
        self.texture = texture
        self.config = config
        style_image = style_image.to(base.device)
        if state is not None:
            photo = state["photo"]
        if photo is None:
            photo = ranks.same(best_style_photo(base, style_image, config.style_photo, config.seed).contiguous())
        self.reference = make_reference(base, style_image, photo.to(base.device), config)
        content = content or training_content(base, config, photos)
        self.stopping: EarlyStopping | None = None
        if config.patience:
            trained = len(content) - config.held_out
            if trained < 1:
                raise ValueError(f"held_out is {config.held_out}, and there are {len(content)} contents to train on")
            content, held_out = content[torch.arange(trained)], content[torch.arange(trained, len(content))]
            self.stopping = EarlyStopping(config, held_out)
        if ranks.count > min(config.batch_size, len(content)):
            raise ValueError(f"{ranks.count} processes share batches of {config.batch_size} of {len(content)} contents")
        self.bank = ContentBank(content, config.seed)
        self.finetuner = Finetuner.from_base(base, self.reference, config, ranks)
        self.started_from = start.names if start else ()
        if start and state is None:
            begin_from(start, self.finetuner, base)
        if state is not None:
            self.started_from = tuple(state.get("started_from", ()))
            self.finetuner.load_state_dict(state["finetuner"])
            if self.stopping:
                self.stopping.load_state_dict(state["stopping"])

    @property
    def iterations_done(self) -> int:
        return self.finetuner.next_iteration

    @property
    def done(self) -> bool:
        return self.iterations_done >= self.config.iterations or (self.stopping is not None and self.stopping.stopped)

    def run(self) -> Iterator[dict[str, float]]:
        """Iterate to the end; yields the mean losses of each iteration."""
        while not self.done:
            indices = self.bank.indices(self.iterations_done, self.config.batch_size)
            steps = self.finetuner.iteration(self.bank.content[indices.to(self.base.device)])
            if self.stopping:
                self.stopping.check(self.finetuner)
                if self.done:
                    self.stopping.keep_best(self.finetuner)
            yield {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers only, so that ``torch.load(weights_only=True)`` reads it."""
        state = {"photo": self.reference.photo.cpu(), "finetuner": self.finetuner.state_dict()}
        state |= {"started_from": list(self.started_from)}
        return state | ({"stopping": self.stopping.state_dict()} if self.stopping else {})

    def metrics(self) -> dict[str, float]:
        """Of the finished training, where it looked at held-out contents: its best score, and when it ended."""
        return self.stopping.metrics(self.iterations_done) if self.stopping else {}

    def header(self, style_id: str, preset: Preset) -> StyleHeader:
        return StyleHeader(
            style_id=style_id,
            base_name=self.base.spec.name,
            base_fingerprint=self.base.fingerprint,
            preset=preset,
            config=self.config,
            texture=self.texture,
            colors=colors_of(self.reference.style),
            started_from=self.started_from,
            format=ADAPTER_FORMAT if self.config.adapter_rank else FORMAT,
        )

    def checkpoint(self, style_id: str, preset: Preset) -> bytes:
        """The finished style's file."""
        tuner = self.finetuner
        header = self.header(style_id, preset)
        return dump_style(header, tuner.unet, tuner.spn, self.reference.z_style, deltas=self._deltas())

    def style(self, style_id: str, preset: Preset) -> Style:
        """The style in its current state, ready to stylize with."""
        deltas = self._deltas()
        unet = self.finetuner.unet.eval() if deltas is None else merged(self.base.diffae.unet, deltas)
        return Style(
            self.header(style_id, preset),
            unet,
            self.finetuner.spn,
            self.reference.z_style,
            self.base.style_levels,
            deltas=deltas,
        )

    def _deltas(self) -> Deltas | None:
        return deltas_of(self.finetuner.unet, self.base.diffae.unet) if self.config.adapter_rank else None


def training_content(base: Base, config: TrainConfig, photos: Tensor | None = None) -> Content:
    """What a style is trained on: ``photos`` if given, else the base's bank, or photographs drawn from its prior.

    Raises:
        BaseError: the base has neither.
        ValueError: ``config`` names a folder of photographs, and they are not given.
    """
    settings: dict[str, Any] = {"steps": config.encode_steps, "t0_ratio": config.t0_ratio, "clamp": config.clamp}
    if photos is not None:
        return encode_in_batches(base, photos, config.batch_size, **settings)
    if config.content.photos is not None:
        raise ValueError(f"content.photos is {config.content.photos}: read the photographs and give them")
    if config.content.source == "bank" and (stored := stored_bank(base, **settings)) is not None:
        return stored
    if base.spec.latent_prior is None:
        raise BaseError(f"base {base.spec.name} has no latent prior to draw photographs from: give content.photos")
    rng = generator(config.seed, "bank")
    count = config.content.count
    noise = starting_noise(base.spec.unet, count, rng)
    z_noise = torch.randn(count, base.spec.latent_prior.channels, generator=rng)
    drawn = torch.cat(
        [
            draw_photos(base, x.to(base.device), z.to(base.device), steps=config.decode_steps)
            for x, z in zip(noise.split(config.batch_size), z_noise.split(config.batch_size), strict=True)
        ]
    )
    return encode_in_batches(base, drawn, config.batch_size, **settings)


def missing_parts(spec: BaseSpec, config: TrainConfig) -> list[str]:
    """What a training with these settings needs and the base lacks, in words; without loading anything."""
    weights, photo = config.weights, config.style_photo.image
    lacks = []
    if photo is None and spec.photo_prior is None:
        lacks.append("photo_prior, which finds the style photo (or give style_photo.image)")
    if spec.perceptual is None and (weights.perceptual_terms or photo is None):
        terms = weights.perceptual_terms or ["recon_perceptual"]
        lacks.append(f"perceptual (or set weights.{', weights.'.join(terms)} to 0 and give style_photo.image)")
    known = {"main": spec.clip} | spec.more_clip
    for name in (config.clips or ("main",)) if weights.clip_terms else ():
        if (clip := known.get(name)) is None:
            lacks.append(f"clip {name!r}, named in clips")
        elif config.clip_image == "statistics" and not clip.has_statistics:
            lacks.append(f"statistics of clip {name!r} (set clip_image to joint)")
    distances = {"main": spec.perceptual} | spec.more_perceptual
    lacks += [f"perceptual {name!r}, named in perceptuals" for name in config.perceptuals if not distances.get(name)]
    has_bank = "content_bank.safetensors" in spec.files and config.content.source == "bank"
    if not (config.content.photos or has_bank or spec.latent_prior):
        lacks.append("latent_prior, from which photographs are drawn (or give content.photos)")
    return lacks
