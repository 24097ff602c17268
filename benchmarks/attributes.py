"""A small classifier of portraits' attributes, trained apart from any base: it judges what text editing does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Row = Mapping[str, str]


@dataclass(frozen=True)
class Attribute:
    """A yes-or-no question about a portrait: values of ``column`` that mean yes and no; others are left out."""

    name: str
    prompt: str
    column: str
    yes: frozenset[str]
    no: frozenset[str]

    def label(self, row: Row) -> float:
        """1, 0, or -1 for unknown."""
        value = row[self.column]
        return 1.0 if value in self.yes else 0.0 if value in self.no else -1.0


ATTRIBUTES = (
    Attribute("smile", "smiling", "smile", frozenset({"open"}), frozenset({"none"})),
    Attribute("glasses", "with glasses", "glasses", frozenset({"yes"}), frozenset({"no"})),
    Attribute("beard", "with a beard", "beard", frozenset({"beard"}), frozenset({"none"})),
)


def labels(rows: Sequence[Row]) -> Tensor:
    """[N, attributes], as :meth:`Attribute.label`."""
    return torch.tensor([[attribute.label(row) for attribute in ATTRIBUTES] for row in rows])


def network() -> nn.Module:
    """Images [N, 3, 64, 64] in [-1, 1] → logits [N, attributes]."""

    def block(channels: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]

    widths = (3, 16, 32, 64, 96)
    blocks = [layer for pair in pairwise(widths) for layer in block(*pair)]
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(0.4), nn.Linear(96 * 4 * 4, len(ATTRIBUTES)))
    return net.to(memory_format=torch.channels_last)


def train(images: Tensor, wanted: Tensor, *, epochs: int, seed: int = 0, batch_size: int = 32) -> nn.Module:
    """The classifier of ``images`` [N, 3, 64, 64] with labels [N, attributes]; flipped, moved, tinted and blurred.

    Rare answers weigh as much as common ones. Blur is half of the pictures, since what an autoencoder gives is softer.
    """
    torch.manual_seed(seed)
    net = network().train()
    steps = epochs * -(-len(images) // batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    known = (wanted >= 0).float()
    positive = (wanted == 1).float().sum(0)
    balance = (known.sum(0) - positive) / positive
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(batch_size):
            logits = net(_varied(images[index]).contiguous(memory_format=torch.channels_last))
            each = F.binary_cross_entropy_with_logits(
                logits, wanted[index].clamp(min=0), pos_weight=balance, reduction="none"
            )
            loss = (each * known[index]).sum() / known[index].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def _varied(images: Tensor) -> Tensor:
    batch, size = len(images), images.shape[-1]
    flip = torch.where(torch.rand(batch, 1, 1) < 0.5, -1.0, 1.0)
    zoom = 0.8 + 0.25 * torch.rand(batch, 1, 1)
    shift = 0.1 * (2 * torch.rand(batch, 2, 1) - 1)
    grid = F.affine_grid(
        torch.cat([torch.diag_embed(torch.cat([flip * zoom, zoom], 1)[..., 0]), shift], 2),
        [batch, 3, size, size],
        align_corners=False,
    )
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = images * (0.8 + 0.4 * torch.rand(batch, 1, 1, 1)) + 0.2 * (2 * torch.rand(batch, 3, 1, 1) - 1)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.where(torch.rand(batch, 1, 1, 1) < 0.5, soft, images)
