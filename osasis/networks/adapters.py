"""Low-rank adapters on a UNet (Hu et al. 2021, "LoRA"): its weights stay as they are, and a style is what is added.

A layer W, b becomes M·W, M·b with M = 1 + up @ down: its output channels are mixed. That is LoRA whose inner factor is
taken through the layer's own weights. For convolutions it has two merits: M is merged before the layer is applied, so
that an adapted network's forward pass costs what a plain one's does; and the gradient needs the correlations of
channels alone, [O, O], instead of a whole weight's, a third of a training step.

Shapes: B batch, O output channels of a layer, R rank.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osasis.networks.layers import AttentionBlock, sharing
from osasis.networks.unet import UNet
from osasis.seeding import generator

Place = Literal["conv", "attention", "embedding", "norm"]
"""What is adapted: convolutions, attention's projections, layers that time and z_sem enter by. Normalizations have few
gains and shifts, which are trained as they are."""

PLACES: Final[tuple[Place, ...]] = ("conv", "attention", "embedding", "norm")

Deltas = dict[str, Tensor]
"""What a style adds: ``<layer>.down`` [R, O] and ``<layer>.up`` [O, R], and differences of whole parameters."""

_Layer = nn.Conv2d | nn.Conv1d | nn.Linear


class _MixedConvolution(torch.autograd.Function):
    """A convolution by ``weight`` and ``bias``, in which ``down`` and ``up`` are merged; differentiated by those two.

    With G = Σ grad·outputᵀ and S = (1 + down·up)⁻¹: ∂up = G·downᵀ·Sᵀ and ∂down = upᵀ·G − upᵀ·∂up·upᵀ.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, down: Tensor, up: Tensor, *at: Any) -> Tensor:  # type: ignore[override]
        weight = weight.to(x.dtype)
        output = (F.conv2d if x.ndim == 4 else F.conv1d)(x, weight, bias.to(x.dtype), *at)
        ctx.save_for_backward(x, output, weight, down, up)
        ctx.at = at
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, output, weight, down, up = ctx.saved_tensors
        stride, padding = ctx.at
        ones = (1,) * (x.ndim - 2)
        rest = (ones, False, (0,) * len(ones), 1, [ctx.needs_input_grad[0], False, False])
        grad_x = torch.ops.aten.convolution_backward(grad, x, weight, None, stride, padding, *rest)[0]
        rows, columns = (t.movedim(1, -1).flatten(0, -2) for t in (grad, output))
        g = (rows.t() @ columns).to(up.dtype)
        inverse = torch.linalg.inv_ex(torch.eye(len(down)).to(up) + down @ up).inverse
        grad_up = g @ down.t() @ inverse.t()
        grad_down = up.t() @ g - up.t() @ grad_up @ up.t()
        return grad_x, None, None, grad_down, grad_up, None, None


class Adapted(nn.Module):
    """A layer with an adapter, in the layer's place; its own parameters keep their names, and are frozen."""

    def __init__(self, layer: _Layer, rank: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = layer.weight.requires_grad_(False)
        assert layer.bias is not None
        self.bias = layer.bias.requires_grad_(False)
        self.at = None if isinstance(layer, nn.Linear) else (layer.stride, layer.padding)
        outputs = len(self.weight)
        rank = min(rank, outputs)
        down = torch.randn(rank, outputs, generator=rng) * outputs**-0.5
        self.down = nn.Parameter(down.to(self.weight))
        self.up = nn.Parameter(torch.zeros(outputs, rank).to(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        if self.at is None:
            y = F.linear(x, self.weight, self.bias)
            return y + F.linear(F.linear(y, self.down), self.up)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        with torch.no_grad(), torch.autocast(kind, enabled=False):  # weights are merged in full precision
            weight, bias = _mixed(self.weight, self.down, self.up), _mixed(self.bias, self.down, self.up)
        return _MixedConvolution.apply(x, weight, bias, self.down, self.up, *self.at)


def _mixed(parameter: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """``(1 + up @ down)`` applied to a weight's or bias's first dimension."""
    rows = parameter.flatten(1) if parameter.ndim > 1 else parameter[:, None]
    return parameter + (up @ (down @ rows)).view(parameter.shape)


def adapt(unet: UNet, rank: int, places: Iterable[Place], seed: int) -> UNet:
    """The same UNet with adapters, and normalizations where they are among ``places``, as all that is trained."""
    unet.requires_grad_(False)
    chosen = set(places)
    rng = generator(seed, "adapter")
    for name, module in [*unet.named_modules()]:
        if isinstance(module, nn.GroupNorm) and "norm" in chosen:
            module.requires_grad_(True)
        elif isinstance(module, _Layer) and _place_of(unet, name, module) in chosen:
            parent, _, child = name.rpartition(".")
            setattr(unet.get_submodule(parent), child, Adapted(module, rank, rng))
    return unet


def _place_of(unet: UNet, name: str, layer: _Layer) -> Place:
    if isinstance(unet.get_submodule(name.rpartition(".")[0]), AttentionBlock):
        return "attention"
    return "embedding" if isinstance(layer, nn.Linear) else "conv"


def trained_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def deltas_of(unet: UNet, base: UNet) -> Deltas:
    """What an adapted UNet adds to the base that it was made from."""
    before = dict(base.named_parameters())
    trained = trained_parameters(unet)
    return {name: p - before[name] if name in before else p.detach().clone() for name, p in trained.items()}


@torch.no_grad()
def combined(parts: Sequence[tuple[Deltas, float]], rank: int) -> Deltas:
    """The sum of several styles' deltas by weights. That of adapters is of a higher rank: the nearest of ``rank``."""
    found: Deltas = {}
    for name in dict.fromkeys(name for deltas, _ in parts for name in deltas):
        layer, _, part = name.rpartition(".")
        if part == "down":
            continue
        added = [
            weight * (deltas[name] @ deltas[f"{layer}.down"] if part == "up" else deltas[name])
            for deltas, weight in parts
            if name in deltas
        ]
        found[name] = torch.stack(added).sum(0)
        if part == "up":
            u, sizes, v = torch.linalg.svd(found[name])
            found[name], found[f"{layer}.down"] = u[:, :rank] * sizes[:rank], v[:rank]
    return found


@torch.no_grad()
def merged(base: UNet, deltas: Deltas) -> UNet:
    """The base's UNet, frozen, with a style's deltas in its weights; those without any share the base's memory.

    Raises:
        AttributeError, KeyError, RuntimeError: they are not of this network.
    """
    unet = sharing(base)
    for name, delta in deltas.items():
        path, _, part = name.rpartition(".")
        layer = unet.get_submodule(path)
        changed: dict[str, Tensor] = {}
        if part == "up":
            for kind in ("weight", "bias"):
                before = getattr(layer, kind)
                changed[kind] = _mixed(before, deltas[f"{path}.down"].to(before), delta.to(before))
        elif part != "down":
            before = getattr(layer, part)
            changed[part] = before + delta.to(before).view_as(before)
        for kind, value in changed.items():
            setattr(layer, kind, nn.Parameter(value, requires_grad=False))
    return unet
