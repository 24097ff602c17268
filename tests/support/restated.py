"""The release's networks and loops once more, from the public descriptions of their architectures alone.

Plain functions of named weights, in float64, that share no code with the project: folders in the golden format of any
configuration are made from them. Weights are drawn when they are first asked for, so that their shapes, too, are
restated and not copied.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Config = dict[str, Any]


class Weights:
    """Named weights; unknown ones are drawn."""

    def __init__(self, seed: int) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._rng = torch.Generator().manual_seed(seed)

    def get(self, name: str, *shape: int, around: float = 0.0, std: float = 0.1) -> Tensor:
        if name not in self.tensors:
            drawn = around + std * torch.randn(*shape, generator=self._rng, dtype=torch.float64)
            self.tensors[name] = drawn.float().double()  # the files are float32
        assert self.tensors[name].shape == shape, name
        return self.tensors[name]

    def linear(self, name: str, x: Tensor, c_out: int) -> Tensor:
        w = self.get(f"{name}.weight", c_out, x.shape[1], std=x.shape[1] ** -0.5)
        return x @ w.T + self.get(f"{name}.bias", c_out)

    def conv(self, name: str, x: Tensor, c_out: int, kernel: int = 3, stride: int = 1) -> Tensor:
        w = self.get(f"{name}.weight", c_out, x.shape[1], kernel, kernel, std=(x.shape[1] * kernel**2) ** -0.5)
        return F.conv2d(x, w, self.get(f"{name}.bias", c_out), stride=stride, padding=kernel // 2)

    def conv1(self, name: str, x: Tensor, c_out: int) -> Tensor:
        w = self.get(f"{name}.weight", c_out, x.shape[1], 1, std=x.shape[1] ** -0.5)
        return F.conv1d(x, w, self.get(f"{name}.bias", c_out))

    def norm(self, name: str, x: Tensor, groups: int | None = None) -> Tensor:
        c = x.shape[1]
        w, b = self.get(f"{name}.weight", c, around=1.0), self.get(f"{name}.bias", c)
        return F.group_norm(x, groups or min(32, c), w, b)

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def sinusoids(t: Tensor, dim: int) -> Tensor:
    """As the release: angles in float32."""
    freqs = torch.exp(-math.log(10000) * torch.arange(dim // 2, dtype=torch.float32) / (dim // 2))
    angles = t.float()[:, None] * freqs
    return torch.cat([angles.cos(), angles.sin()], 1).double()


def halved(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def res_block(
    w: Weights, name: str, x: Tensor, c_out: int, emb: Tensor | None, z: Tensor | None, c: Config, change: Any = None
) -> Tensor:
    c_in = x.shape[1]
    h = F.silu(w.norm(f"{name}.in_layers.0", x))
    if change:
        h, x = change(h), change(x)
    h = w.conv(f"{name}.in_layers.2", h, c_out)
    if emb is not None:
        both = c.get("scale_shift", True)
        time = w.linear(f"{name}.emb_layers.1", F.silu(emb), 2 * c_out if both else c_out)[:, :, None, None]
        if both:
            h = w.norm(f"{name}.out_layers.0", h) * (1 + time[:, :c_out]) + time[:, c_out:]
        else:
            h = w.norm(f"{name}.out_layers.0", h + time)
        if z is not None:
            h = h * (1 + w.linear(f"{name}.cond_emb_layers.1", F.silu(z), c_out)[:, :, None, None])
        h = w.conv(f"{name}.out_layers.3", F.silu(h), c_out)
    return h + (x if c_in == c_out else w.conv(f"{name}.skip_connection", x, c_out, kernel=1))


def attention(w: Weights, name: str, x: Tensor, c: Config, heads: int) -> Tensor:
    b, channels = x.shape[:2]
    if c.get("head_channels", -1) != -1:
        heads = channels // c["head_channels"]
    flat = x.reshape(b, channels, -1)
    qkv = w.conv1(f"{name}.qkv", w.norm(f"{name}.norm", flat), 3 * channels)
    size, out = channels // heads, []
    for head in range(heads):
        if c.get("new_order", False):
            q, k, v = (qkv[:, i * channels + head * size :][:, :size] for i in range(3))
        else:
            q, k, v = (qkv[:, (3 * head + i) * size :][:, :size] for i in range(3))
        scores = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(size)
        out.append(torch.einsum("bts,bcs->bct", scores.softmax(-1), v))
    return (flat + w.conv1(f"{name}.proj_out", torch.cat(out, 1), channels)).reshape(x.shape)


def unet(
    w: Weights, c: Config, x: Tensor, t: Tensor, z: Tensor | None = None, ref: Tensor | None = None, levels: Any = ()
) -> Tensor:
    """``c``: size, ch, mult, blocks, attention, emb, time (prefix of the time embedding), out and the options above."""
    emb = w.linear(f"{c['time']}.2", F.silu(w.linear(f"{c['time']}.0", sinusoids(t, c["ch"]), c["emb"])), c["emb"])
    widths, n = [int(m * c["ch"]) for m in c["mult"]], len(c["mult"])

    def cond(level: int) -> Tensor | None:
        return ref if ref is not None and level in levels else z

    def attended(name: str, h: Tensor, heads: int) -> Tensor:
        return attention(w, name, h, c, heads) if h.shape[-1] in c["attention"] else h

    h = w.conv("input_blocks.0.0", x, widths[0])
    saved: list[list[Tensor]] = [[] for _ in range(n)]
    saved[0].append(h)
    k = 1
    for level in range(n):
        for _ in range(c["blocks"]):
            h = res_block(w, f"input_blocks.{k}.0", h, widths[level], emb, cond(level), c)
            h = attended(f"input_blocks.{k}.1", h, c["heads"])
            saved[level].append(h)
            k += 1
        if level < n - 1:
            name = f"input_blocks.{k}.0"
            if c["updown"]:
                h = res_block(w, name, h, widths[level], emb, cond(level + 1), c, halved)
            else:
                h = w.conv(f"{name}.op", h, widths[level], stride=2)
            saved[level + 1].append(h)
            k += 1
    h = res_block(w, "middle_block.0", h, widths[-1], emb, z, c)
    h = attention(w, "middle_block.1", h, c, c["heads"])
    h = res_block(w, "middle_block.2", h, widths[-1], emb, z, c)
    k = 0
    for level in reversed(range(n)):
        for i in range(c["blocks"] + 1):
            h = torch.cat([h, saved[level].pop()], 1)
            h = res_block(w, f"output_blocks.{k}.0", h, widths[level], emb, cond(level), c)
            attends = h.shape[-1] in c["attention"]
            h = attended(f"output_blocks.{k}.1", h, c.get("heads_up", c["heads"]))
            if level and i == c["blocks"]:
                name = f"output_blocks.{k}.{2 if attends else 1}"
                if c["updown"]:
                    h = res_block(w, name, h, widths[level], emb, cond(level), c, doubled)
                else:
                    h = w.conv(f"{name}.conv", doubled(h), widths[level])
            k += 1
    return w.conv("out.2", F.silu(w.norm("out.0", h)), c["out"])


def encoder(w: Weights, c: Config, x: Tensor) -> Tensor:
    widths = [int(m * c["ch"]) for m in c["enc_mult"]]
    h = w.conv("encoder.input_blocks.0.0", x, widths[0])
    k = 1
    for level, width in enumerate(widths):
        for _ in range(c["enc_blocks"]):
            h = res_block(w, f"encoder.input_blocks.{k}.0", h, width, None, None, c)
            if h.shape[-1] in c["attention"]:
                h = attention(w, f"encoder.input_blocks.{k}.1", h, c, c["heads"])
            k += 1
        if level < len(widths) - 1:
            name = f"encoder.input_blocks.{k}.0"
            h = (
                res_block(w, name, h, width, None, None, c, halved)
                if c["updown"]
                else w.conv(f"{name}.op", h, width, stride=2)
            )
            k += 1
    h = res_block(w, "encoder.middle_block.0", h, widths[-1], None, None, c)
    h = attention(w, "encoder.middle_block.1", h, c, c["heads"])
    h = res_block(w, "encoder.middle_block.2", h, widths[-1], None, None, c)
    h = F.silu(w.norm("encoder.out.0", h)).mean((2, 3), keepdim=True)
    return w.conv("encoder.out.3", h, c["z"], kernel=1).flatten(1)


ACTIVATIONS = {
    "silu": F.silu, "relu": torch.relu, "tanh": torch.tanh, "none": lambda x: x, "lrelu": lambda x: F.leaky_relu(x, 0.2)
}  # fmt: skip


def latent_net(w: Weights, c: Config, x: Tensor, t: Tensor) -> Tensor:
    act, d = ACTIVATIONS[c["activation"]], x.shape[1]
    cond = sinusoids(t, c["time_emb_channels"])
    for i in range(c["num_time_layers"]):
        cond = w.linear(f"latent_net.time_embed.{2 * i}", act(cond) if i else cond, d)
    h = x
    for i in range(c["num_layers"]):
        name = f"latent_net.layers.{i}"
        if i in c["skip_layers"]:
            h = torch.cat([h, x], 1)
        if i == c["num_layers"] - 1:
            return w.linear(f"{name}.linear", h, d)
        h = w.linear(f"{name}.linear", h, c["hidden"])
        h = h * (c["condition_bias"] + w.linear(f"{name}.linear_emb", act(cond), c["hidden"]))
        for part in ("weight", "bias"):  # the release stores this layer under a second name
            w.tensors[f"{name}.cond_layers.1.{part}"] = w.tensors[f"{name}.linear_emb.{part}"]
        if c["use_norm"]:
            scale, shift = (
                w.get(f"{name}.norm.{part}", c["hidden"], around=a) for part, a in (("weight", 1.0), ("bias", 0.0))
            )
            h = F.layer_norm(h, (c["hidden"],), scale, shift)
        h = act(h)
    raise AssertionError


def spn(w: Weights, x: Tensor, t: Tensor | None) -> Tensor:
    """With time, or without where ``t`` is None."""
    if t is None:
        for i, c_out in ((0, 128), (3, 256), (6, 128)):
            x = F.silu(w.norm(f"layers.{i + 1}", w.conv(f"layers.{i}", x, c_out, kernel=1), 32))
        return w.conv("layers.9", x, 3, kernel=1)
    emb = w.linear("time_embed.2", F.silu(w.linear("time_embed.0", sinusoids(t, 128), 512)), 512)
    x = w.conv("in_layer.0", x, 128, kernel=1)
    for block, c_out in (("block1", 256), ("block2", 128)):
        x = w.conv(f"{block}.pre_layer.2", F.silu(w.norm(f"{block}.pre_layer.0", x, 32)), c_out, kernel=1)
        x = w.norm(f"{block}.pre_layer.3", x, 32)
        time = w.linear(f"{block}.emb_layer.1", F.silu(emb), 2 * c_out)[:, :, None, None]
        x = w.conv(f"{block}.post_layer.1", F.silu(x * (1 + time[:, :c_out]) + time[:, c_out:]), c_out, kernel=1)
    return w.conv("out_layer.0", x, 3, kernel=1)


def alphas(timesteps: list[int], betas: Tensor | None = None) -> list[float]:
    """Cumulative products at the kept timesteps; linear betas unless given."""
    if betas is None:
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return (1 - betas).cumprod(0)[timesteps].tolist()


def ddim_spacing(steps: int) -> list[int]:
    return next(list(range(0, 1000, s)) for s in range(1, 1000) if len(range(0, 1000, s)) == steps)


def ddim(x: Tensor, eps: Tensor, a: float, a_to: float, clamp: bool = True) -> tuple[Tensor, Tensor]:
    """One step in either direction: (x, predicted x0)."""
    x0 = x / math.sqrt(a) - math.sqrt(1 / a - 1) * eps
    if clamp:
        x0 = x0.clamp(-1, 1)
    direction = (x / math.sqrt(a) - x0) / math.sqrt(1 / a - 1)
    return math.sqrt(a_to) * x0 + math.sqrt(1 - a_to) * direction, x0
