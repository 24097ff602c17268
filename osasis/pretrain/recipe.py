"""Recipes: everything that makes a base from images, by name."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from osasis.clip import FIRST_WORD, ClipConfig, ClipTextConfig, ClipVisionConfig
from osasis.encoder import EncoderConfig
from osasis.latent_prior import LatentPriorConfig
from osasis.perceptual import PerceptualConfig
from osasis.pretrain import captions, paint
from osasis.pretrain.clip import ClipTrainConfig
from osasis.pretrain.trainer import PretrainConfig
from osasis.unet import UNetConfig


class Recipe(BaseModel):
    """Networks of a base and how each is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int
    decode_size: int = Field(description="Side at which images are kept for random crops, pixels.")
    unet: UNetConfig
    encoder: EncoderConfig
    latent_prior: LatentPriorConfig
    photo_prior: UNetConfig
    clip: ClipConfig
    perceptual: PerceptualConfig
    style_levels: tuple[int, ...]
    train_defaults: dict[str, Any] = {}
    diffae_training: PretrainConfig
    latent_training: PretrainConfig
    photo_training: PretrainConfig
    clip_training: ClipTrainConfig
    bank_size: int = Field(64, gt=0, description="Content photographs encoded into the bundle.")
    bank_encode_steps: int = 50
    bank_t0_ratio: float = Field(0.5, gt=0, lt=1)


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
        out_groups=4,
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
            vision=ClipVisionConfig(layers=(1, 2, 2, 1), width=24, head_width=32, image_size=64),
            text=ClipTextConfig(
                context_length=40, vocab_size=len(vocab) + FIRST_WORD + 2, width=128, heads=4, layers=2
            ),
            vocab=vocab,
        ),
        perceptual=PerceptualConfig(kind="clip"),
        style_levels=(0, 1),
        # Found by trying on the two styles of the demo: docs/design.md says what each is for.
        train_defaults={
            "iterations": 24,
            "batch_size": 2,
            "learning_rate": 4e-5,
            "t0_ratio": 0.4,
            "weights": {"cross_domain": 0.7, "recon_perceptual": 2.0},
            "spn_style": "lambda",
            "spn_init": "zero",
            "matched_t0": True,
            "dropout": False,
            "bf16": True,
        },
        bank_t0_ratio=0.4,
        diffae_training=PretrainConfig(
            steps=9000, batch_size=16, learning_rate=3e-4, decay="trapezoid", ema=0.9995, noisy_weight=100
        ),
        latent_training=PretrainConfig(steps=2000, batch_size=128, learning_rate=5e-4, bf16=False),
        photo_training=PretrainConfig(steps=400, batch_size=16, learning_rate=2e-4, warmup_steps=50, ema=0.99),
        clip_training=ClipTrainConfig(
            steps=3400, batch_size=64, learning_rate=1e-3, warmup_steps=100, weight_decay=0.1, ema=0.995, variants=7
        ),
    )


RECIPES = {"mini64": _mini64}
"""Name → maker of a recipe."""
