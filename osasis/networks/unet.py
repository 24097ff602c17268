"""The denoising UNet: eps_theta(x_t, t, z) of DiffAE, and the unconditional photo prior.

Shapes: B batch, S image size, E time-embedding width, D width of z_sem.
A *level* is a resolution: level 0 is S×S, level k is S/2^k.
"""

from collections.abc import Callable, Collection
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from osasis.diffusion import BETA_END
from osasis.networks.layers import (
    AttentionBlock,
    Downsample,
    ResBlock,
    Upsample,
    absent,
    group_norm,
    heads_of,
    timestep_embedding,
    zeroed,
)


class UNetConfig(BaseModel):
    """Sizes of a UNet (DiffAE's BeatGANs form when ``cond_channels`` is given)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(gt=0, description="Side of the square image, pixels.")
    model_channels: int = Field(gt=0, description="Channels at level 0 before the multiplier.")
    channel_mult: tuple[int | float, ...] = Field(min_length=1, description="Channel multiplier per level.")
    num_res_blocks: int = Field(2, gt=0, description="Residual blocks per level.")
    attention_resolutions: tuple[int, ...] = Field((16,), description="Sizes in pixels that get self-attention.")
    emb_channels: int = Field(gt=0, description="Width of the time embedding.")
    cond_channels: int | None = Field(None, description="Width of z_sem; None: unconditional.")
    num_heads: int = Field(1, gt=0, description="Attention heads, unless head_channels is given.")
    head_channels: int | None = Field(None, description="Channels per attention head.")
    learn_sigma: bool = Field(False, description="Also predict the variance (3 further output channels).")
    dropout: float = Field(0.1, ge=0, lt=1)
    # Forms that few networks have. They are written only where they are used, so that the fingerprint of a base that
    # does without them stays what it was.
    norm_groups: int = Field(
        32,
        gt=0,
        exclude_if=lambda groups: groups == 32,
        description="Groups of every normalization. The release has 32; a network of 32 channels needs fewer, or each"
        " channel's mean is removed at full size and colour hardly passes.",
    )
    beta_end: float = Field(
        BETA_END,
        gt=1e-4,
        lt=1,
        exclude_if=lambda beta: beta == BETA_END,
        description="Last beta of the linear schedule this network is trained on. Fewer pixels need less noise to hide"
        " as much: a picture a quarter as wide ends at 16 times the signal-to-noise ratio.",
    )
    typical_noise: bool = Field(
        False,
        exclude_if=absent,
        description="Sampling begins with noise that has the mean and mean square of its distribution exactly"
        " (osasis/noise.py). For small pictures, where chance moves both further.",
    )
    num_heads_up: int | None = Field(
        None, gt=0, exclude_if=absent, description="Heads in the upper half; None: as elsewhere."
    )
    qkv_first: bool = Field(False, exclude_if=absent, description="Order of the attention's channels: q, k, v outside.")
    conv_resample: bool = Field(False, exclude_if=absent, description="Sizes change by convolutions, not in blocks.")
    add_time: bool = Field(False, exclude_if=absent, description="Time is added; else it scales and shifts.")

    def heads(self, channels: int, *, up: bool = False) -> int:
        """Attention heads at a layer of so many channels."""
        if self.head_channels:
            return heads_of(channels, self.head_channels)
        return (self.num_heads_up if up else None) or self.num_heads

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [int(mult * self.model_channels) for mult in self.channel_mult]


class UNet(nn.Module):
    """eps_theta. One conditioning vector, or two mixed by level (paper, section 3.4)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.recompute = False
        """Keep no activations within blocks for the gradient: they are computed again, which takes a third longer."""

        def res_block(c_in: int, c_out: int, resample: str | None = None) -> ResBlock:
            return ResBlock(
                c_in,
                c_out,
                emb_channels=c.emb_channels,
                cond_channels=c.cond_channels,
                dropout=c.dropout,
                resample=resample,
                scale_shift=not c.add_time,
                norm_groups=c.norm_groups,
            )

        def attention(channels: int, up: bool = False) -> AttentionBlock:
            heads = c.heads(channels, up=up)
            return AttentionBlock(channels, heads, qkv_first=c.qkv_first, norm_groups=c.norm_groups)

        self.time_embed = nn.Sequential(
            nn.Linear(c.model_channels, c.emb_channels), nn.SiLU(), nn.Linear(c.emb_channels, c.emb_channels)
        )
        # Each block is a list of layers; `*_levels` says which level a block's layers belong to.
        skips = self._make_input_blocks(res_block, attention)
        channels = skips[-1]
        self.middle_block = nn.ModuleList(
            [res_block(channels, channels), attention(channels), res_block(channels, channels)]
        )
        channels = self._make_output_blocks(res_block, attention, skips)
        self.out = nn.Sequential(
            group_norm(channels, c.norm_groups),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, 6 if c.learn_sigma else 3, 3, padding=1)),
        )

    def _make_input_blocks(self, res_block: Callable[..., ResBlock], attention: Callable[..., nn.Module]) -> list[int]:
        """The way down; returns the channels of what every block hands to the way up."""
        c, widths = self.config, self.config.widths
        channels = widths[0]
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, channels, 3, padding=1)])])
        self.input_levels = [0]
        skips = [channels]
        for level, width in enumerate(widths):
            attend = c.image_size >> level in c.attention_resolutions
            for _ in range(c.num_res_blocks):
                self.input_blocks.append(
                    nn.ModuleList([res_block(channels, width), *([attention(width)] if attend else [])])
                )
                channels = width
                skips.append(channels)
                self.input_levels.append(level)
            if level != len(widths) - 1:
                down = Downsample(channels) if c.conv_resample else res_block(channels, channels, "down")
                self.input_blocks.append(nn.ModuleList([down]))
                skips.append(channels)
                self.input_levels.append(level + 1)

        return skips

    def _make_output_blocks(
        self, res_block: Callable[..., ResBlock], attention: Callable[..., nn.Module], skips: list[int]
    ) -> int:
        """The way up; returns the channels of the last block."""
        c, widths, channels = self.config, self.config.widths, skips[-1]
        self.output_blocks = nn.ModuleList()
        self.output_levels = []
        for level, width in reversed(list(enumerate(widths))):
            attend = c.image_size >> level in c.attention_resolutions
            for i in range(c.num_res_blocks + 1):
                block: list[nn.Module] = [res_block(channels + skips.pop(), width)]
                if attend:
                    block.append(attention(width, up=True))
                channels = width
                if level and i == c.num_res_blocks:
                    block.append(Upsample(channels) if c.conv_resample else res_block(channels, channels, "up"))
                self.output_blocks.append(nn.ModuleList(block))
                self.output_levels.append(level)
        return channels

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        z: Tensor | None = None,
        *,
        z_style: Tensor | None = None,
        style_levels: Collection[int] = (),
    ) -> Tensor:
        """Predicted noise (and variance logits, with ``learn_sigma``).

        Args:
            x: [B, 3, S, S], the noisy image x_t.
            t: [B], integer timesteps of the unspaced process.
            z: [B, D], conditions every block outside ``style_levels``.
            z_style: [B, D] or [1, D], conditions the blocks of ``style_levels`` in both halves.
            style_levels: levels (0 = full resolution) that take ``z_style``; the middle block never does.
        """
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels).to(x.dtype))
        if z_style is not None and z is not None:
            z_style = z_style.expand_as(z)

        def z_at(level: int) -> Tensor | None:
            return z_style if z_style is not None and level in style_levels else z

        run = partial(checkpoint, _run, use_reentrant=False) if self.recompute and torch.is_grad_enabled() else _run
        h = x
        skips = []
        for block, level in zip(self.input_blocks, self.input_levels, strict=True):
            h = run(block, h, emb, z_at(level))
            skips.append(h)
        h = run(self.middle_block, h, emb, z)
        for block, level in zip(self.output_blocks, self.output_levels, strict=True):
            h = run(block, torch.cat([h, skips.pop()], dim=1), emb, z_at(level))
        return self.out(h)


def _run(layers: nn.Module, h: Tensor, emb: Tensor, z: Tensor | None) -> Tensor:
    for layer in layers.children():
        h = layer(h, emb, z) if isinstance(layer, ResBlock) else layer(h)
    return h
