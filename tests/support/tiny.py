"""A base of random weights, small enough for a forward pass in milliseconds."""

from pathlib import Path

import torch

from osasis.base import Base, BaseSpec, load_base, save_base
from osasis.checkpoint import StyleHeader, dump_style
from osasis.content import bank_part, encode_content
from osasis.networks.clip import ClipConfig, ClipEncoder, ClipTextConfig, ClipVisionConfig
from osasis.networks.diffae import DiffAE
from osasis.networks.encoder import EncoderConfig
from osasis.networks.latent_prior import LatentPrior, LatentPriorConfig
from osasis.networks.perceptual import PerceptualConfig
from osasis.networks.spn import TimeSPN
from osasis.networks.unet import UNet, UNetConfig
from osasis.pretrain.clip import ClipTrainConfig
from osasis.pretrain.recipe import Recipe
from osasis.pretrain.trainer import PretrainConfig
from osasis.settings import TrainConfig

SIZE = 16
WORDS = ("a", "photo", "painting", "smiling")
UNET = UNetConfig(
    image_size=SIZE,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
    emb_channels=16,
    cond_channels=12,
    beta_end=0.015,  # not the default, which nothing may take for granted
)
SPEC = BaseSpec(
    name="tiny",
    image_size=SIZE,
    unet=UNET,
    encoder=EncoderConfig(image_size=SIZE, model_channels=8, channel_mult=(1, 2), num_res_blocks=1, out_channels=12),
    latent_prior=LatentPriorConfig(channels=12, hidden=16, num_layers=3),
    photo_prior=UNET.model_copy(update={"cond_channels": None, "learn_sigma": True}),
    clip=ClipConfig(
        embed_dim=8,
        vision=ClipVisionConfig(layers=(1, 1, 1, 1), width=8, head_width=8, image_size=32),
        text=ClipTextConfig(context_length=8, vocab_size=len(WORDS) + 4, width=16, heads=2, layers=1),
        vocab=WORDS,
    ),
    perceptual=PerceptualConfig(kind="clip"),
    style_levels=(0,),
    train_defaults={
        "iterations": 4,
        "batch_size": 2,
        "encode_steps": 10,
        "decode_steps": 5,
        "style_photo": {"steps": 10, "candidates": 2},
    },
)


def tiny_recipe() -> Recipe:
    """Makes a base like :data:`SPEC` in a few steps."""
    quick = {"steps": 4, "batch_size": 4, "warmup_steps": 1, "precision": "float32"}
    return Recipe(
        **{name: getattr(SPEC, name) for name in Recipe.model_fields if name in BaseSpec.model_fields},
        decode_size=40,
        diffae_training=PretrainConfig(**quick),
        latent_prior_training=PretrainConfig(**quick),
        photo_prior_training=PretrainConfig(**quick),
        clip_training=ClipTrainConfig(**quick, variants=1),
        bank_size=4,
        bank_encode_steps=10,
    )


def make_tiny_base(folder: Path, *, seed: int = 0, bank: bool = True) -> Path:
    """Write the bundle to ``folder``; another ``seed`` is another base."""
    torch.manual_seed(seed)
    networks = {
        "diffae": DiffAE(SPEC.unet, SPEC.encoder),
        "photo_prior": UNet(SPEC.photo_prior or UNET),
        "clip": ClipEncoder(SPEC.clip or ClipConfig()),
    }
    for network in networks.values():
        for parameter in network.parameters():  # networks begin with zeroed outputs: let them do something
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    parts = {name: network.state_dict() for name, network in networks.items()}
    prior = LatentPrior(SPEC.latent_prior or LatentPriorConfig()).state_dict()
    parts["latent_prior"] = prior | {"conds_mean": torch.zeros(12), "conds_std": torch.ones(12)}
    spec = save_base(folder, SPEC, parts)
    if bank:
        photos = torch.rand(6, 3, SIZE, SIZE) * 2 - 1
        content = encode_content(load_base(folder), photos, steps=10, t0_ratio=0.5)
        save_base(folder, spec, {"content_bank": bank_part(content, steps=10, t0_ratio=0.5, clamp=True)})
    return folder


def tiny_style_bytes(base: Base, style_id: str = "tiny-style", seed: int = 0) -> bytes:
    """A style file whose UNet is the base's, slightly disturbed."""
    torch.manual_seed(seed + 1)
    unet = UNet(base.spec.unet)
    unet.load_state_dict({k: v + 0.05 * torch.randn_like(v) for k, v in base.diffae.unet.state_dict().items()})
    header = StyleHeader(
        style_id=style_id,
        base_name=base.spec.name,
        base_fingerprint=base.fingerprint,
        preset="official",
        config=TrainConfig(),
    )
    return dump_style(header, unet, TimeSPN(), torch.randn(1, 12))


def make_tiny_style(base_folder: Path, out: Path, style_id: str = "tiny-style", seed: int = 0) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(tiny_style_bytes(load_base(base_folder), style_id, seed))
    return out
