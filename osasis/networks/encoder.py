"""The semantic encoder of DiffAE: z_sem = Enc(I) (paper, section 3.1)."""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from osasis.networks.layers import AttentionBlock, Downsample, ResBlock, absent, group_norm, heads_of


class EncoderConfig(BaseModel):
    """Sizes of the semantic encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(gt=0)
    model_channels: int = Field(gt=0)
    channel_mult: tuple[int | float, ...] = Field(min_length=1)
    num_res_blocks: int = Field(2, gt=0)
    attention_resolutions: tuple[int, ...] = (16,)
    num_heads: int = Field(1, gt=0)
    out_channels: int = Field(512, gt=0, description="Width D of z_sem.")
    head_channels: int | None = Field(None, gt=0, exclude_if=absent, description="Channels per attention head.")
    qkv_first: bool = Field(False, exclude_if=absent, description="As in UNetConfig.")
    conv_resample: bool = Field(False, exclude_if=absent, description="As in UNetConfig.")

    def attention(self, channels: int) -> AttentionBlock:
        heads = heads_of(channels, self.head_channels) if self.head_channels else self.num_heads
        return AttentionBlock(channels, heads, qkv_first=self.qkv_first)


class SemanticEncoder(nn.Module):
    """Image [B, 3, S, S] in [-1, 1] → z_sem [B, D]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [int(mult * c.model_channels) for mult in c.channel_mult]
        channels = widths[0]
        self.input_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(3, channels, 3, padding=1))])
        for level, width in enumerate(widths):
            attend = c.image_size >> level in c.attention_resolutions
            for _ in range(c.num_res_blocks):
                block: list[nn.Module] = [ResBlock(channels, width)]
                if attend:
                    block.append(c.attention(width))
                self.input_blocks.append(nn.Sequential(*block))
                channels = width
            if level != len(widths) - 1:
                down = Downsample(channels) if c.conv_resample else ResBlock(channels, channels, resample="down")
                self.input_blocks.append(nn.Sequential(down))
        self.middle_block = nn.Sequential(
            ResBlock(channels, channels), c.attention(channels), ResBlock(channels, channels)
        )
        self.out = nn.Sequential(
            group_norm(channels), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, c.out_channels, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        h = image
        for block in self.input_blocks:
            h = block(h)
        return self.out(self.middle_block(h)).flatten(1)
