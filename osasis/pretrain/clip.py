"""The CLIP part of base pretraining: contrastive training on captioned, restyled portraits."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip import ClipLoss
from pydantic import Field
from torch import Tensor, nn

from osasis.image import from_levels
from osasis.networks.clip import FIRST_WORD, PAD, UNKNOWN, ClipEncoder
from osasis.networks.lite import pretrained
from osasis.networks.statistics import StatisticsTower
from osasis.pretrain import captions, paint
from osasis.pretrain.captions import Row
from osasis.pretrain.crops import Augmentation, CropSampler, JoinedImages
from osasis.pretrain.trainer import PretrainConfig, Trainer, Wrap

_LARGEST_SCALE = float(np.log(100))
_SIZES = [len(values) for values in captions.CONTRASTED.values()]


class ClipTrainConfig(PretrainConfig):
    """How a CLIP is trained. Micro-batches of ``accumulate`` are contrasted within themselves only."""

    variants: int = Field(6, ge=0, description="Restyled versions of every image, made once and kept in memory.")
    restyled: float = Field(0.3, ge=0, le=1, description="Share of restyled images in a batch.")
    details: float = Field(
        3.0, ge=0, description="Weight of telling captions apart that differ in one attribute alone."
    )
    balance_details: float = Field(
        0.0, ge=0, le=1, description="1: in telling captions apart, every value of an attribute counts as much."
    )
    color_jitter: float = Field(0.1, ge=0, lt=1, description="Spread of brightness and contrast; a third per channel.")
    word_dropout: float = Field(0.05, ge=0, lt=1, description="Share of words read as unknown, which trains that word.")
    most_images: int = Field(
        20_000, gt=0, description="Images used at most; they and their restyled versions are kept in memory."
    )
    view_size: int | None = Field(
        None,
        gt=0,
        description="Side of the views that are drawn, pixels; none: the network's. It enlarges smaller ones.",
    )
    balance: float = Field(0.5, ge=0, le=1, description="0: images as they come; 1: rare labels drawn as often.")


class ContrastiveLoss(nn.Module):
    """open_clip's loss over all workers' images and captions, and the same contrast within single attributes.

    The second term picks, for each image, the right one among captions that differ in one attribute alone. Small
    things such as glasses are learned several times faster by it than from whole captions.
    """

    class_weights: Tensor

    def __init__(self, network: ClipEncoder, details: float, class_weights: Tensor | None = None) -> None:
        """``class_weights``: [K], of the values of all attributes in order; none: equal ones."""
        super().__init__()
        self.network = network
        self.details = details
        weights = torch.ones(sum(_SIZES)) if class_weights is None else class_weights
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, images: Tensor, tokens: Tensor, contrasts: Tensor, labels: Tensor) -> Tensor:
        """``images`` [B, 3, S, S] in [-1, 1]; ``tokens`` [B, L]; ``contrasts`` [K, L], K captions of all attributes
        in order; ``labels`` [B, attributes], the right one of each attribute's or -1 → scalar.
        """
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        whole = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
        scale = self.network.model.logit_scale.clamp(max=_LARGEST_SCALE).exp()
        image = self.network.encode_image(images).float()
        text, single = self.network.encode_tokens(torch.cat([tokens, contrasts])).float().tensor_split([len(tokens)])
        loss = whole(image, text, scale)
        attributes = (scale * image @ single.T).split(_SIZES, dim=1)
        for logits, label, weight in zip(attributes, labels.T, self.class_weights.split(_SIZES), strict=True):
            known = ((label >= 0) * weight[label]).sum().clamp(min=1e-6)
            error = F.cross_entropy(logits, label, weight, ignore_index=-1, reduction="sum") / known
            loss = loss + self.details / len(_SIZES) * error
        return loss


class ClipTrainer(Trainer):
    """Trains a CLIP on labelled portraits.

    Args:
        images: uint8 [N, H, H, 3], H at least the network's image size; kept in memory, painted ones too.
        rows: their N rows of labels.

    Raises:
        ValueError: images and rows differ in number.
    """

    config: ClipTrainConfig

    def __init__(
        self,
        network: ClipEncoder,
        images: np.ndarray,
        rows: Sequence[Row],
        config: ClipTrainConfig,
        device: str = "cpu",
        wrap: Wrap = lambda m: m,
        augment: Augmentation | None = None,
    ) -> None:
        if len(images) != len(rows):
            raise ValueError(f"{len(images)} images, but {len(rows)} rows of labels")
        chances = rarity(rows).pow(config.balance)
        weights = value_weights(rows, chances, config.balance_details)
        super().__init__(ContrastiveLoss(network, config.details, weights), config, device, wrap)
        # Decay would pull gains and biases of normalizations towards nothing: it is for matrices and kernels.
        decayed = {"params": [p for p in self.module.parameters() if p.ndim > 1]}
        others: dict[str, Any] = {"params": [p for p in self.module.parameters() if p.ndim <= 1], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW([decayed, others], lr=config.learning_rate, weight_decay=config.weight_decay)
        self.rows = rows
        painted, self.styles = paint.paint_all(images, config.variants, config.seed)
        light = (augment or Augmentation()).model_copy(update={"colour": config.color_jitter})
        self.crops = CropSampler(JoinedImages([images, painted]), config.view_size or network.image_size, light)
        self.weights = chances
        self.tokenize = network.tokenize
        # CLIP's own byte pairs have no unknown word to train.
        self.word_dropout = config.word_dropout if network.config.vocab else 0.0

    def draw(self, step: int, places: range) -> tuple[Tensor, ...]:
        index, contrasts = self._batch_plan(step)
        images, tokens, labels = [], [], []
        for place in places:
            rng = self.rng(step, place)
            row, media, colors = self._shown(index[place])
            words = random.Random(int(torch.randint(2**62, (), generator=rng)))
            images.append(self.crops.view(index[place], rng))
            tokens.append(self._with_dropped_words(captions.caption(row, words, media, colors), rng))
            labels.append([captions.contrasted(row, a, colors) for a in captions.CONTRASTED])
        batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
        return batch, torch.cat(tokens), contrasts, torch.tensor(labels)

    def _batch_plan(self, step: int) -> tuple[list[int], Tensor]:
        """What all workers must agree on: the batch's pictures, without repeats where the set allows, and contrasts."""
        c, total, rng = self.config, len(self.rows), self.rng(step, "batch")
        count = c.batch_size
        chosen = torch.multinomial(self.weights, count, replacement=total < count, generator=rng)
        restyled = torch.rand(count, generator=rng) < c.restyled * (c.variants > 0)
        variant = torch.randint(max(1, c.variants), (count,), generator=rng)
        words = random.Random(int(torch.randint(2**62, (), generator=rng)))
        contrasts = self.tokenize([text for a in captions.CONTRASTED for text in captions.contrasts(a, words)])
        return (chosen + restyled * (variant + 1) * total).tolist(), contrasts

    def _with_dropped_words(self, caption: str, rng: torch.Generator) -> Tensor:
        """Token ids [1, L]; some words are read as the unknown one."""
        tokens = self.tokenize([caption])
        dropped = torch.rand(tokens.shape, generator=rng) < self.word_dropout
        edges = (tokens == PAD) | (tokens >= tokens.max() - 1)  # start and end of text have the two largest ids
        return torch.where(dropped & ~edges & (tokens >= FIRST_WORD), UNKNOWN, tokens)

    def _shown(self, index: int) -> tuple[Row, tuple[str, ...], bool]:
        """What picture ``index`` shows: its labels, words for its medium, whether it has its colours."""
        row = self.rows[index % len(self.rows)]
        if index < len(self.rows):
            return row, captions.PHOTO, True
        style = self.styles[index - len(self.rows)]
        return row, style.words, style.colors

    def _average(self) -> None:
        super()._average()
        # Averaged weights need batch statistics of their time, not those of the random start.
        share = max(1 - self.config.ema, 9 / (10 + self.next_step))  # as young averages of weights forget
        for (name, mean), now in zip(self.ema.named_buffers(), self.module.buffers(), strict=True):
            if name.endswith(("running_mean", "running_var")):
                mean.lerp_(now, share)

    @property
    def averaged(self) -> ClipEncoder:
        """The network with its averaged weights, the ones a base keeps."""
        return self.ema.network  # type: ignore[return-value]


def pretrained_tower(network: ClipEncoder) -> ClipEncoder:
    """``network`` with its image tower's pretrained weights, where it has one of statistics; they stay frozen.

    Raises:
        ImportError: the package with the weights is not installed.
    """
    if isinstance(tower := network.model.visual, StatisticsTower):
        tower.network.load_state_dict(pretrained(tower.config.network))
    return network


def rarity(rows: Sequence[Row]) -> Tensor:
    """How rare the rarest known attribute of each row is: 1 / share of its value, at most 25. [N]"""
    weights = torch.ones(len(rows))
    for attribute in ("smile", "glasses", "beard", "hair"):
        counts = Counter(row.get(attribute, "") for row in rows)
        for i, row in enumerate(rows):
            if value := row.get(attribute, ""):
                weights[i] = max(weights[i].item(), min(25.0, len(rows) / counts[value]))
    return weights


def value_weights(rows: Sequence[Row], chances: Tensor, strength: float) -> Tensor:
    """Weights of the contrasted values of all attributes in order: [K], one on average over drawn images.

    A value that one image in fifteen has is otherwise ignored at little cost: "no beard" is nearly always right.

    Args:
        chances: [N], how often each row is drawn, in any unit.
        strength: 0: equal weights; 1: every value of an attribute counts as much.
    """
    weights = []
    for attribute, values in captions.CONTRASTED.items():
        index = torch.tensor([captions.contrasted(row, attribute) for row in rows])
        seen = torch.stack([chances[index == k].sum() for k in range(len(values))])
        weight = (1 / seen.clamp_min(1e-3 * seen.max().clamp_min(1e-6))).pow(strength)
        weights.append(weight * seen.sum().clamp_min(1e-6) / (weight * seen).sum().clamp_min(1e-6))
    return torch.cat(weights)


ZERO_SHOT: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "person": ("person", (("man",), ("woman",))),
    "smile": ("smile", (("open",), ("none",))),
    "expression": ("smile", (("open",), ("closed",), ("none",))),
    "glasses": ("glasses", (("yes",), ("no",))),
    "beard": ("beard", (("beard", "mustache"), ("none",))),
    "hair_color": ("hair", (("brown",), ("gray",), ("black",), ("blond",), ("white",), ("red",))),
    "bald": ("hair", (("bald",), ("brown", "gray", "black", "blond", "white", "red"))),
    "age": ("age", (("young",), ("middle-aged",), ("old",))),
}
"""Task → attribute and its classes, each of one or several values. Rows of no class are left out."""


@torch.no_grad()
def evaluate(
    network: ClipEncoder, images: np.ndarray, rows: Sequence[Row], view_size: int | None = None
) -> dict[str, float]:
    """Zero-shot and retrieval figures on ``images`` uint8 [N, H, H, 3] with labels, seen at ``view_size`` pixels.

    For every task: accuracy, ``…/balanced`` (mean recall of the classes present) and ``…/majority``, the accuracy
    of always naming the commonest class. ``retrieval/r1``, ``r5``: share of images whose full caption is among the
    1 or 5 nearest; ``…/chance``. The network is used in evaluation mode and left in the mode it had.
    """
    was_training = network.training
    network.eval()
    side = view_size or network.image_size
    embedded = _embed_images(network, images, side)
    figures: dict[str, float] = {}
    for task, (attribute, classes) in ZERO_SHOT.items():
        values = [next((k for k, c in enumerate(classes) if row.get(attribute) in c), -1) for row in rows]
        means = torch.stack([_class_embedding(network, attribute, names) for names in classes])
        figures |= _scores(task, embedded @ means.T, torch.tensor(values))
    figures |= _medium_scores(network, images, embedded, side)
    figures |= _retrieval(embedded, network.encode_text([captions.full_caption(row) for row in rows]))
    network.train(was_training)
    return figures


def _embed_images(network: ClipEncoder, images: np.ndarray, side: int, chunk: int = 128) -> Tensor:
    device = network.model.positional_embedding.device
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    parts = [
        network.encode_image(
            from_levels(F.interpolate(p.to(device).float(), (side, side), mode="bilinear", antialias=True))
        )
        for p in torch.split(pixels, chunk)
    ]
    return torch.cat(parts)


def _class_embedding(network: ClipEncoder, attribute: str, values: tuple[str, ...]) -> Tensor:
    means = [network.encode_text(captions.prompts(attribute, value)).mean(0) for value in values]
    return F.normalize(torch.stack(means).mean(0), dim=0)


def _medium_scores(network: ClipEncoder, images: np.ndarray, photos: Tensor, side: int) -> dict[str, float]:
    painters: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
        "painting": paint.oil,
        "sketch": paint.pencil,
        "print": paint.woodblock,
    }
    rng = np.random.default_rng(0)
    painted = (np.stack([paint_one(image, rng) for image in images]) for paint_one in painters.values())
    embedded = [photos, *(_embed_images(network, pictures, side) for pictures in painted)]
    texts = network.encode_text([f"a {medium} of a person" for medium in ("photo", *painters)])
    labels = torch.arange(len(embedded)).repeat_interleave(len(images))
    return _scores("medium", torch.cat(embedded) @ texts.T, labels)


def _scores(task: str, similarity: Tensor, labels: Tensor) -> dict[str, float]:
    """``similarity`` [N, classes]; ``labels`` [N], -1 for none."""
    known = labels >= 0
    labels, right = labels[known], similarity.argmax(1).cpu()[known] == labels[known]
    if not len(labels):
        return {}
    recalls = torch.stack([right[labels == k].float().mean() for k in set(labels.tolist())])
    return {
        task: right.float().mean().item(),
        f"{task}/balanced": recalls.mean().item(),
        f"{task}/majority": labels.bincount().max().item() / len(labels),
    }


def _retrieval(images: Tensor, texts: Tensor) -> dict[str, float]:
    similarity = images @ texts.T
    rank = (~(similarity < similarity.diagonal()[:, None])).sum(1) - 1  # ties count against
    figures = {}
    for k in (1, 5):
        figures[f"retrieval/r{k}"] = (rank < k).float().mean().item()
        figures[f"retrieval/r{k}/chance"] = min(1.0, k / len(images))
    return figures
