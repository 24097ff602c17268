"""Recipes: everything that makes a base from images, by name."""

from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from osasis.networks.clip import FIRST_WORD, ClipConfig, ClipTextConfig
from osasis.networks.encoder import EncoderConfig
from osasis.networks.latent_prior import LatentPriorConfig
from osasis.networks.perceptual import PerceptualConfig
from osasis.networks.statistics import StatisticsVisionConfig
from osasis.networks.unet import UNetConfig
from osasis.precision import current_precision
from osasis.pretrain import captions, paint
from osasis.pretrain.clip import ClipTrainConfig
from osasis.pretrain.crops import Augmentation
from osasis.pretrain.trainer import PretrainConfig

PartName = Literal["diffae", "latent_prior", "photo_prior", "clip"]
"""A part of a base that is trained: the name of its file, of its networks in a recipe, and of its training there."""

PARTS: tuple[PartName, ...] = get_args(PartName)
"""In order: the priors start from the trained DiffAE."""

_FORMER_PARTS = {"latent": "latent_prior", "photo-prior": "photo_prior"}
_FORMER_FIELDS = {"latent_training": "latent_prior_training", "photo_training": "photo_prior_training"}


def current_part(name: str) -> str:
    """A part by its present name; "latent" and "photo-prior" are former ones."""
    return _FORMER_PARTS.get(name, name)


def current_fields(values: Any) -> Any:
    """A recipe, or part of one, as former versions wrote it, under the present names; anything else as it is."""
    if not isinstance(values, dict):
        return values
    return {_FORMER_FIELDS.get(name, name): current_precision(value) for name, value in values.items()}


class Recipe(BaseModel):
    """Networks of a base and how each is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(gt=0)
    decode_size: int = Field(description="Side at which images are kept for random crops, pixels.")
    augment: Augmentation = Augmentation()
    unet: UNetConfig
    encoder: EncoderConfig
    latent_prior: LatentPriorConfig
    photo_prior: UNetConfig
    clip: ClipConfig
    perceptual: PerceptualConfig
    style_levels: tuple[int, ...]
    train_defaults: dict[str, Any] = {}
    diffae_training: PretrainConfig
    latent_prior_training: PretrainConfig
    photo_prior_training: PretrainConfig
    clip_training: ClipTrainConfig
    bank_size: int = Field(64, gt=0, description="Content photographs encoded into the bundle.")
    bank_encode_steps: int = 50
    bank_t0_ratio: float = Field(0.5, gt=0, lt=1)

    _former = model_validator(mode="before")(current_fields)

    def training(self, part: PartName) -> PretrainConfig:
        """How a part is trained."""
        return getattr(self, f"{part}_training")

    def with_words(self, own: tuple[str, ...]) -> Self:
        """The recipe whose CLIP also knows these words; one with CLIP's byte pairs knows every word."""
        if not own or not self.clip.vocab or self.clip.text is None:
            return self
        vocab = tuple(sorted({*self.clip.vocab, *own}))
        text = self.clip.text.model_copy(update={"vocab_size": len(vocab) + FIRST_WORD + 2})
        return self.model_copy(update={"clip": self.clip.model_copy(update={"vocab": vocab, "text": text})})

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        for name in ("unet", "encoder", "photo_prior"):
            if (size := getattr(self, name).image_size) != self.image_size:
                raise ValueError(f"{name}.image_size is {size}, image_size {self.image_size}: they must be equal")
        if self.image_size % 2 ** (len(self.unet.channel_mult) - 1):
            raise ValueError(f"image_size {self.image_size} cannot be halved for {len(self.unet.channel_mult)} levels")
        if not self.unet.cond_channels == self.encoder.out_channels == self.latent_prior.channels:
            raise ValueError("unet.cond_channels, encoder.out_channels and latent_prior.channels must be equal")
        if self.photo_prior.cond_channels is not None or not self.photo_prior.learn_sigma:
            raise ValueError("photo_prior must be unconditional and learn its variance (learn_sigma: true)")
        if self.decode_size < self.image_size:
            raise ValueError(f"decode_size {self.decode_size} is below image_size {self.image_size}")
        if any(level >= len(self.unet.channel_mult) for level in self.style_levels):
            raise ValueError(f"style_levels {self.style_levels} of a UNet of {len(self.unet.channel_mult)} levels")
        return self


_MINI64_TRAINING: dict[str, Any] = {
    "iterations": 28,
    "batch_size": 2,
    "learning_rate": 1e-4,
    "rate_decay": 0.6,
    "t0_ratio": 0.4,
    "style_photo": {"t0_ratio": 0.3},
    "weights": {
        "cross_domain": 1.0,
        "in_domain": 0.5,
        "recon_clip": 10.0,
        "recon_l1": 5.0,
        "recon_perceptual": 0.25,
        "style_moments": 10.0,
        "style_colors": 6.0,
        "self_similarity": 120.0,
        "edges": 10.0,
    },
    "self_similarity_margin": 0.01,
    "color_match": 1.0,
    "clip_image": "statistics",
    "clip_embeddings": "unit",
    "spn_style": "lambda",
    "spn_init": "zero",
    "spn_steps": "spread",
    "matched_t0": True,
    "dropout": False,
    "precision": "bf16",
    "fit": "crop",
}
"""Found by trying on the references of samples/styles: docs/design.md says what each is for."""


def _mini64() -> Recipe:
    """64 px, 5.6 M parameters in the UNet: trains in hours on a few cores and runs anywhere."""
    unet = UNetConfig(
        image_size=64,
        model_channels=32,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=1,
        emb_channels=128,
        cond_channels=128,
        dropout=0.0,
        norm_groups=8,
        beta_end=0.01446,  # alpha_bar ends at 7e-4, 16 times that of the 256-pixel networks
        typical_noise=True,
    )
    vocab = captions.vocabulary([word for style in paint.STYLES for word in style.words])
    return Recipe(
        image_size=64,
        decode_size=80,
        unet=unet,
        encoder=EncoderConfig(
            image_size=64, model_channels=32, channel_mult=(1, 2, 3, 4, 4), num_res_blocks=1, out_channels=128
        ),
        latent_prior=LatentPriorConfig(channels=128, hidden=512, num_layers=6),
        photo_prior=unet.model_copy(update={"cond_channels": None, "learn_sigma": True}),
        clip=ClipConfig(
            embed_dim=128,
            vision=StatisticsVisionConfig(network="lite0", image_size=128, dropout=0.2),
            text=ClipTextConfig(
                context_length=40, vocab_size=len(vocab) + FIRST_WORD + 2, width=128, heads=4, layers=2
            ),
            vocab=vocab,
        ),
        perceptual=PerceptualConfig(kind="clip"),
        style_levels=(0, 1),
        train_defaults=_MINI64_TRAINING,
        bank_t0_ratio=0.4,
        diffae_training=PretrainConfig(
            steps=9000, batch_size=32, learning_rate=4e-4, decay="trapezoid", ema=0.999, noisy_weight=300
        ),
        latent_prior_training=PretrainConfig(steps=2000, batch_size=128, learning_rate=5e-4, precision="float32"),
        photo_prior_training=PretrainConfig(steps=800, batch_size=16, learning_rate=2e-4, warmup_steps=50, ema=0.99),
        clip_training=ClipTrainConfig(
            steps=1000,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=100,
            weight_decay=0.1,
            ema=0.995,
            variants=8,
            view_size=64,
        ),
    )


def _ffhq256() -> Recipe:
    """The paper's sizes: 138.3 M parameters in the UNet, 30.2 M in the encoder, 54.1 M in the latent prior.

    The training settings are a starting point in the manner of DiffAE and P2: 90 million images for the DiffAE; they
    have not been run to the end. The CLIP is better imported: a ViT-B/32 wants more captions than a domain has.
    """
    mult = (1, 1, 2, 2, 4, 4)
    constant: dict[str, Any] = {"learning_rate": 1e-4, "decay": "constant", "warmup_steps": 0, "ema": 0.9999}
    unet = UNetConfig(
        image_size=256, model_channels=128, channel_mult=mult, num_res_blocks=2, emb_channels=512, cond_channels=512
    )
    return Recipe(
        image_size=256,
        decode_size=288,
        augment=Augmentation(zoom=0.0, shift=0.0),  # FFHQ is aligned: the face's place is part of what is learned
        unet=unet,
        encoder=EncoderConfig(
            image_size=256, model_channels=128, channel_mult=(*mult, 4), num_res_blocks=2, out_channels=512
        ),
        latent_prior=LatentPriorConfig(channels=512, hidden=2048, num_layers=10),
        photo_prior=UNetConfig(
            image_size=256,
            model_channels=128,
            channel_mult=mult,
            num_res_blocks=1,
            emb_channels=512,
            head_channels=64,
            learn_sigma=True,
            dropout=0.0,
        ),
        clip=ClipConfig(name="ViT-B-32-quickgelu"),
        perceptual=PerceptualConfig(kind="lpips", net="vgg"),
        style_levels=(0, 1, 2, 3),
        diffae_training=PretrainConfig(steps=1_400_000, batch_size=64, loaders=8, **constant),
        latent_prior_training=PretrainConfig(steps=100_000, batch_size=256, precision="float32", **constant),
        photo_prior_training=PretrainConfig(steps=500_000, batch_size=8, loaders=8, p2_gamma=1.0, **constant),
        clip_training=ClipTrainConfig(steps=30_000, batch_size=256, learning_rate=5e-4, weight_decay=0.2, variants=7),
    )


RECIPES = {"mini64": _mini64, "ffhq256": _ffhq256}
"""Name → maker of a recipe."""
