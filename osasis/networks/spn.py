"""The structure-preserving network (SPN): 1×1 convolutions on the photograph (paper, section 3.3)."""

from torch import Tensor, nn

from osasis.networks.layers import timestep_embedding

_TIME_CHANNELS = 128
_EMB_CHANNELS = 512


class _TimeBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.pre_layer = nn.Sequential(
            nn.GroupNorm(32, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 1), nn.GroupNorm(32, c_out)
        )
        self.emb_layer = nn.Sequential(nn.SiLU(), nn.Linear(_EMB_CHANNELS, 2 * c_out))
        self.post_layer = nn.Sequential(nn.SiLU(), nn.Conv2d(c_out, c_out, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.emb_layer(emb)[:, :, None, None].chunk(2, dim=1)
        return self.post_layer(self.pre_layer(x) * (1 + scale) + shift)


class TimeSPN(nn.Module):
    """SPN conditioned on time, the official release's default (873,347 parameters)."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(
            nn.Linear(_TIME_CHANNELS, _EMB_CHANNELS), nn.SiLU(), nn.Linear(_EMB_CHANNELS, _EMB_CHANNELS)
        )
        self.in_layer = nn.Sequential(nn.Conv2d(3, 128, 1))
        self.block1 = _TimeBlock(128, 256)
        self.block2 = _TimeBlock(256, 128)
        self.out_layer = nn.Sequential(nn.Conv2d(128, 3, 1))

    @property
    def output(self) -> nn.Module:
        """The last layer."""
        return self.out_layer

    def forward(self, image: Tensor, t: Tensor) -> Tensor:
        """``image`` [B, 3, S, S] in [-1, 1], ``t`` [B] → [B, 3, S, S], to be added to x_t."""
        emb = self.time_embed(timestep_embedding(t, _TIME_CHANNELS).to(image.dtype))
        return self.out_layer(self.block2(self.block1(self.in_layer(image), emb), emb))


class PlainSPN(nn.Module):
    """SPN without time, as the paper names it (67,843 parameters)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 128, 1), nn.GroupNorm(32, 128), nn.SiLU()),
            *(nn.Conv2d(128, 256, 1), nn.GroupNorm(32, 256), nn.SiLU()),
            *(nn.Conv2d(256, 128, 1), nn.GroupNorm(32, 128), nn.SiLU()),
            nn.Conv2d(128, 3, 1),
        )

    @property
    def output(self) -> nn.Module:
        """The last layer."""
        return self.layers[-1]

    def forward(self, image: Tensor, t: Tensor | None = None) -> Tensor:
        """As :class:`TimeSPN`; ``t`` is accepted and ignored."""
        return self.layers(image)


SPN = TimeSPN | PlainSPN
