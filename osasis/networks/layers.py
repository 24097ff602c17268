"""Building blocks shared by every network of the method.

Shapes: B batch, C channels, H×W pixels, E time-embedding width, D width of z_sem.
State-dict keys follow the official DiffAE and guided-diffusion releases, so that their weights load.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def absent(value: object) -> bool:
    """For optional fields of network configurations: what is not set is not written."""
    return not value


def heads_of(channels: int, head_channels: int) -> int:
    """Attention heads of a given width.

    Raises:
        ValueError: the channels cannot be split so.
    """
    if channels % head_channels:
        raise ValueError(f"head_channels: {channels} channels cannot be split into heads of {head_channels}")
    return channels // head_channels


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of timesteps, cosines first. ``t``: [B] → [B, dim], float32."""
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * freqs[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


class _ChannelsLastGroupNorm(torch.autograd.Function):
    """Group normalization with a backward pass made of whole-tensor reductions.

    PyTorch's CPU kernel for the gradient walks channels-last tensors with large strides: it took 41 % of a
    training step. The formulas are the usual ones, in sums over pixels first.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:  # type: ignore[override,no-untyped-def]  # noqa: ANN001
        b, c, height, width = x.shape
        out, mean, rstd = torch.native_group_norm(
            x, weight.to(x.dtype), bias.to(x.dtype), b, c, height * width, groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override,no-untyped-def]  # noqa: ANN001, ANN205
        x, weight, mean, rstd = ctx.saved_tensors
        b, c, height, width = x.shape
        groups = mean.shape[1]
        per_group = c // groups
        mean, rstd = mean.float(), rstd.float()
        sum_g = grad.sum((2, 3), dtype=torch.float32)  # [B, C]
        sum_gx = (grad * x).sum((2, 3), dtype=torch.float32)  # [B, C]
        mean_c, rstd_c = (s.repeat_interleave(per_group, dim=1) for s in (mean, rstd))
        weight = weight.float()
        grad_weight = ((sum_gx - mean_c * sum_g) * rstd_c).sum(0)

        n = per_group * height * width
        group_g = (sum_g * weight).view(b, groups, per_group).sum(2)
        group_gx = (sum_gx * weight).view(b, groups, per_group).sum(2)
        slope = (mean * group_g - group_gx) * rstd**3 / n
        offset = -mean * slope - group_g * rstd / n
        slope, offset = (s.repeat_interleave(per_group, dim=1)[:, :, None, None].to(x.dtype) for s in (slope, offset))
        grad_x = torch.addcmul(offset, x, slope).addcmul_(grad, (rstd_c * weight)[:, :, None, None].to(x.dtype))
        return grad_x, grad_weight, sum_g.sum(0), None, None


class GroupNorm(nn.GroupNorm):
    """As :class:`torch.nn.GroupNorm`, with a quick gradient for channels-last images on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        quick = (
            x.device.type == "cpu"
            and x.ndim == 4
            and x.dtype != torch.float64  # the sums of its gradient are float32
            and torch.is_grad_enabled()
            and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()
        )
        if not quick:
            return super().forward(x)
        return _ChannelsLastGroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)


def group_norm(channels: int, groups: int = 32) -> GroupNorm:
    return GroupNorm(min(groups, channels), channels)


def sharing(network: M) -> M:
    """A frozen copy with parameters of its own in the same memory, and the same hooks; a deep copy takes far longer."""
    twin: M = object.__new__(type(network))
    parameters = {
        name: parameter if parameter is None else nn.Parameter(parameter.detach(), requires_grad=False)
        for name, parameter in network._parameters.items()
    }
    modules = {name: child if child is None else sharing(child) for name, child in network._modules.items()}
    vars(twin).update(vars(network), _parameters=parameters, _buffers={**network._buffers}, _modules=modules)
    return twin


def zeroed(module: nn.Module) -> nn.Module:
    """The same module with its parameters at zero: a residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def resample(x: Tensor, direction: str | None) -> Tensor:
    """[B, C, H, W] → half the size by averaging ("down"), twice by nearest ("up"), or unchanged."""
    if direction == "down":
        return F.avg_pool2d(x, 2)
    if direction == "up":
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return x


class Downsample(nn.Module):
    """Half the size by a strided convolution: [B, C, H, W] → [B, C, H/2, W/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Twice the size by nearest neighbours, then a convolution: [B, C, H, W] → [B, C, 2H, 2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(resample(x, "up"))


class ResBlock(nn.Module):
    """Residual block with adaptive group normalization.

    Time gives scale and shift, z gives a further scale: ``h = (norm(h)·(1+s_t) + b_t)·(1+s_z)``.
    Without ``emb_channels`` it is the encoder's form: one normalization, one convolution.

    Args:
        resample: "up", "down" or None, applied to both branches before the first convolution.
        scale_shift: False: time is added before the normalization instead.
        norm_groups: groups of each normalization, or as many as there are channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_channels: int | None = None,
        cond_channels: int | None = None,
        dropout: float = 0.0,
        resample: str | None = None,
        scale_shift: bool = True,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            group_norm(in_channels, norm_groups), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.conditioned = emb_channels is not None
        if emb_channels is not None:
            self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, (1 + scale_shift) * out_channels))
            self.out_layers = nn.Sequential(
                group_norm(out_channels, norm_groups),
                nn.SiLU(),
                nn.Dropout(dropout),
                zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
            )
        if cond_channels is not None:
            self.cond_emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(cond_channels, out_channels))
        self.skip_connection: nn.Module = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """``x`` [B, C, H, W], ``emb`` [B, E], ``z`` [B, D] → [B, C', H', W']."""
        norm, act, conv = self.in_layers
        h = conv(resample(act(norm(x)), self.resample))
        if self.conditioned:
            norm, act, dropout, conv = self.out_layers
            time = self.emb_layers(emb)[:, :, None, None]
            if self.scale_shift:
                scale, shift = time.chunk(2, dim=1)
                h = norm(h) * (1 + scale) + shift
            else:
                h = norm(h + time)
            if z is not None:
                h = h * (1 + self.cond_emb_layers(z)[:, :, None, None])
            h = conv(dropout(act(h)))
        return self.skip_connection(resample(x, self.resample)) + h


class AttentionBlock(nn.Module):
    """Residual self-attention over the H·W positions of a feature map.

    Args:
        qkv_first: how the 3·C channels before attention are ordered: q, k, v and within each the heads; else heads, and
            within each q, k, v (DiffAE, and guided-diffusion by default).
    """

    def __init__(self, channels: int, num_heads: int, *, qkv_first: bool = False, norm_groups: int = 32) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split over {num_heads} attention heads")
        self.num_heads = num_heads
        self.qkv_first = qkv_first
        self.norm = group_norm(channels, norm_groups)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        flat = x.reshape(b, c, height * width)
        outer = (3, self.num_heads) if self.qkv_first else (self.num_heads, 3)
        qkv = self.qkv(self.norm(flat)).view(b, *outer, c // self.num_heads, -1)
        q, k, v = qkv.transpose(-1, -2).unbind(1 if self.qkv_first else 2)  # each [B, heads, H·W, C/heads]
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, -1)
        return (flat + self.proj_out(h)).reshape(b, c, height, width)
