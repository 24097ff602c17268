"""The latent prior of DiffAE: a diffusion model over normalized z_sem, an MLP with skips."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from osasis.layers import timestep_embedding


class LatentPriorConfig(BaseModel):
    """Sizes of the MLP; every layer but the first also sees the input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(512, gt=0, description="Width D of z_sem.")
    hidden: int = Field(2048, gt=0)
    num_layers: int = Field(10, gt=1)
    time_channels: int = Field(64, gt=0, description="Width of the sinusoidal embedding.")
    beta: float = Field(0.008, gt=0, lt=1, description="Constant noise schedule of the latent process.")


class _Layer(nn.Module):
    """Linear → ·(1 + scale(t)) → LayerNorm → SiLU; the last layer is the linear map alone."""

    def __init__(self, c_in: int, c_out: int, c_time: int, last: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)
        self.last = last
        if not last:
            self.linear_emb = nn.Linear(c_time, c_out)
            self.norm = nn.LayerNorm(c_out)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.linear(x)
        if self.last:
            return x
        return nn.functional.silu(self.norm(x * (1 + self.linear_emb(nn.functional.silu(emb)))))


class LatentPrior(nn.Module):
    """Predicted noise on a normalized latent: ``z_t`` [B, D], ``t`` [B] → [B, D]."""

    def __init__(self, config: LatentPriorConfig) -> None:
        super().__init__()
        self.config = c = config
        self.time_embed = nn.Sequential(
            nn.Linear(c.time_channels, c.channels), nn.SiLU(), nn.Linear(c.channels, c.channels)
        )
        self.layers = nn.ModuleList()
        for i in range(c.num_layers):
            last = i == c.num_layers - 1
            self.layers.append(
                _Layer(
                    c.channels if i == 0 else c.hidden + c.channels,
                    c.channels if last else c.hidden,
                    c.channels,
                    last,
                )
            )

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        emb = self.time_embed(timestep_embedding(t, self.config.time_channels))
        h = z_t
        for i, layer in enumerate(self.layers):
            h = layer(h if i == 0 else torch.cat([h, z_t], dim=1), emb)
        return h
