"""The latent prior of DiffAE: a diffusion model over normalized z_sem, an MLP with skips."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from osasis.networks.layers import absent, timestep_embedding

Activation = Literal["none", "relu", "lrelu", "silu", "tanh"]

_ACTIVATIONS: dict[Activation, nn.Module] = {
    "none": nn.Identity(),
    "relu": nn.ReLU(),
    "lrelu": nn.LeakyReLU(0.2),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
}


class LatentPriorConfig(BaseModel):
    """Sizes of the MLP; some layers, usually all but the first, also see the input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(512, gt=0, description="Width D of z_sem.")
    hidden: int = Field(2048, gt=0)
    num_layers: int = Field(10, gt=1)
    time_channels: int = Field(64, gt=0, description="Width of the sinusoidal embedding.")
    beta: float = Field(0.008, gt=0, lt=1, description="Constant noise schedule of the latent process.")
    # As in UNetConfig: written only where they are used.
    skip_layers: tuple[int, ...] | None = Field(
        None,
        exclude_if=lambda layers: layers is None,
        description="Layers that see the input; None: all but the first.",
    )
    num_time_layers: int = Field(2, gt=0, exclude_if=lambda count: count == 2)
    time_last_act: bool = Field(False, exclude_if=absent, description="An activation after the last time layer too.")
    use_norm: bool = Field(True, exclude_if=bool, description="LayerNorm in every layer but the last.")
    condition_bias: float = Field(1.0, exclude_if=lambda bias: bias == 1, description="x · (bias + scale of time).")
    activation: Activation = Field("silu", exclude_if=lambda name: name == "silu")

    @model_validator(mode="after")
    def _skips_exist(self) -> "LatentPriorConfig":
        unknown = [i for i in self.skips if not 0 <= i < self.num_layers]
        if unknown:
            raise ValueError(f"skip_layers {unknown} are not among the {self.num_layers} layers")
        return self

    @property
    def skips(self) -> tuple[int, ...]:
        return tuple(range(1, self.num_layers)) if self.skip_layers is None else self.skip_layers


class _Layer(nn.Module):
    """Linear → ·(bias + scale(t)) → LayerNorm → activation; the last layer is the linear map alone."""

    def __init__(self, c_in: int, c_out: int, config: LatentPriorConfig, last: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)
        self.last = last
        self.bias = config.condition_bias
        self.act = _ACTIVATIONS[config.activation]
        if not last:
            self.linear_emb = nn.Linear(config.channels, c_out)
            self.norm: nn.Module = nn.LayerNorm(c_out) if config.use_norm else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.linear(x)
        if self.last:
            return x
        return self.act(self.norm(x * (self.bias + self.linear_emb(self.act(emb)))))


class LatentPrior(nn.Module):
    """Predicted noise on a normalized latent: ``z_t`` [B, D], ``t`` [B] → [B, D]."""

    def __init__(self, config: LatentPriorConfig) -> None:
        super().__init__()
        self.config = c = config
        time_layers: list[nn.Module] = []
        for i in range(c.num_time_layers):
            time_layers.append(nn.Linear(c.channels if i else c.time_channels, c.channels))
            if i < c.num_time_layers - 1 or c.time_last_act:
                time_layers.append(_ACTIVATIONS[c.activation])
        self.time_embed = nn.Sequential(*time_layers)
        self.layers = nn.ModuleList()
        for i in range(c.num_layers):
            last = i == c.num_layers - 1
            c_in = (c.hidden if i else c.channels) + (c.channels if i in c.skips else 0)
            self.layers.append(_Layer(c_in, c.channels if last else c.hidden, c, last))

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        emb = self.time_embed(timestep_embedding(t, self.config.time_channels).to(z_t.dtype))
        h = z_t
        for i, layer in enumerate(self.layers):
            h = layer(torch.cat([h, z_t], dim=1) if i in self.config.skips else h, emb)
        return h
