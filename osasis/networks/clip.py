"""CLIP: any open_clip model, or a small one with its own vocabulary. Builds networks, never downloads weights."""

import re
from functools import cached_property
from typing import Annotated, Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from osasis.networks.statistics import StatisticsTower, StatisticsVisionConfig

PAD, UNKNOWN, FIRST_WORD = 0, 1, 2
"""Token ids of a small vocabulary: padding, any other word, then the words, then start and end of text."""

Feed = Literal["proper", "nearest"]
Rgb = tuple[float, float, float]
Depths = tuple[int, int, int, int]


class ClipVisionConfig(BaseModel):
    """Image tower: four depths make a ModifiedResNet, one depth a ViT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: Depths | int
    width: int = Field(gt=0)
    head_width: int = Field(gt=0)
    image_size: int = Field(gt=0, description="Side of the images the network sees, pixels.")
    patch_size: int = Field(16, gt=0, description="ViT only.")


_PLACEHOLDER = ClipVisionConfig(layers=1, width=8, head_width=8, image_size=8, patch_size=8)
"""open_clip builds no CLIP without an image tower of its own: the smallest, for one that is then put in its place."""


class ClipTextConfig(BaseModel):
    """Text tower."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context_length: int = Field(77, ge=3)
    vocab_size: int = Field(49408, gt=FIRST_WORD)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    layers: int = Field(gt=0)


class ClipConfig(BaseModel):
    """A CLIP network and how it is fed: either an open_clip model by ``name``, or its sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(None, description="open_clip model name, such as ViT-B-32-quickgelu.")
    embed_dim: int | None = Field(None, gt=0)
    vision: ClipVisionConfig | StatisticsVisionConfig | None = None
    text: ClipTextConfig | None = None
    vocab: tuple[Annotated[str, Field(pattern=r"^\w+$")], ...] = Field(
        (), description="Words of a small vocabulary, in order of their ids; empty: CLIP's byte pairs."
    )
    mean: Rgb | None = Field(None, description="Channel means of [0, 1] images; none: images are fed in [-1, 1].")
    std: Rgb | None = Field(None, description="Channel deviations of [0, 1] images.")

    @model_validator(mode="after")
    def _consistent(self) -> "ClipConfig":
        sizes = (self.embed_dim, self.vision, self.text)
        if self.name is None and None in sizes:
            raise ValueError("give the name of an open_clip model, or all of embed_dim, vision and text")
        if self.name is not None and (sizes != (None, None, None) or self.vocab):
            raise ValueError("name excludes embed_dim, vision, text and vocab: the model defines them")
        if self.name is not None and self.name not in open_clip.list_models():
            raise ValueError(f"open_clip has no model {self.name!r}; open_clip.list_models() lists them")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        if self.vocab and self.text and self.text.vocab_size != len(self.vocab) + FIRST_WORD + 2:
            raise ValueError(f"text.vocab_size must be {len(self.vocab) + FIRST_WORD + 2} for {len(self.vocab)} words")
        if len(set(self.vocab)) != len(self.vocab):
            raise ValueError("vocab names a word twice")
        return self

    @property
    def has_statistics(self) -> bool:
        """Whether :meth:`ClipEncoder.statistics` can be asked for."""
        return isinstance(self.vision, StatisticsVisionConfig)

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text`` that the vocabulary lacks; CLIP's byte pairs spell every word."""
        return [word for word in words(text) if word not in self.vocab] if self.vocab else []


def build_clip(config: ClipConfig) -> CLIP:
    """The network with random weights.

    Raises:
        ValueError: the named model needs a tower or tokenizer that open_clip would download.
    """
    if config.name is None:
        assert config.vision is not None  # the config saw to it
        assert config.text is not None
        statistics = isinstance(config.vision, StatisticsVisionConfig)
        sizes: dict[str, Any] = {
            "embed_dim": config.embed_dim,
            "vision_cfg": (_PLACEHOLDER if statistics else config.vision).model_dump(),
            "text_cfg": config.text.model_dump(),
        }
        model = CLIP(**sizes)
        if isinstance(config.vision, StatisticsVisionConfig):
            assert config.embed_dim is not None
            model.visual = StatisticsTower(config.vision, config.embed_dim)
        return model
    sizes = open_clip.get_model_config(config.name)
    if unknown := sizes.keys() - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}:
        raise ValueError(f"{config.name} is not a plain CLIP (it has {', '.join(sorted(unknown))}); choose another")
    if foreign := [key for key in sizes["text_cfg"] if key.startswith("hf_")]:
        raise ValueError(f"{config.name} needs {', '.join(foreign)}, which would be downloaded; choose another model")
    return CLIP(**sizes)


class ClipEncoder(nn.Module):
    """CLIP as losses and catalog use it. B images or texts, E width of an embedding; embeddings have unit length."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.model = build_clip(config)
        size = self.model.visual.image_size
        self.image_size: int = size if isinstance(size, int) else size[0]

    def encode_image(self, images: Tensor, *, feed: Feed = "proper", unit: bool = True) -> Tensor:
        """[B, 3, H, W] in [-1, 1] → [B, E], differentiable.

        Args:
            feed: "proper" resizes with antialiasing and normalizes as the network was trained; "nearest" does as the
                official release: nearest neighbours, and [-1, 1] as it is.
            unit: scale embeddings to unit length.
        """
        return self.model.encode_image(self._fed(images, feed), normalize=unit)

    def statistics(self, images: Tensor, maps: list[Tensor] | None = None, *, unit: bool = True) -> Tensor:
        """[B, 3, H, W] in [-1, 1] → [B, D], what the image tower projects: moments of pixels and features.

        Args:
            maps: :meth:`features` of these images, where they are known.

        Raises:
            TypeError: the image tower has no statistics.
        """
        if not isinstance(self.model.visual, StatisticsTower):
            raise TypeError("this CLIP has no statistics: its image tower is not made of them")
        embedded = StatisticsTower.statistics(images, self.features(images) if maps is None else maps)
        return F.normalize(embedded, dim=-1) if unit else embedded

    def encode_text(self, texts: list[str]) -> Tensor:
        """B texts → [B, E]. Words that the vocabulary lacks are read as one unknown word."""
        return self.encode_tokens(self.tokenize(texts).to(self.model.positional_embedding.device))

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """[B, L] from :meth:`tokenize` → [B, E]."""
        return self.model.encode_text(tokens, normalize=True)

    @property
    def has_features(self) -> bool:
        """Whether :meth:`features` is available."""
        return isinstance(self.model.visual, ModifiedResNet | StatisticsTower)

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, C, h, w] from fine to coarse: of a ModifiedResNet the stem before its pooling (H/2), then
        layers 1 to 3; of a tower of statistics its levels.

        Raises:
            TypeError: the image tower is neither.
        """
        visual = self.model.visual
        if isinstance(visual, StatisticsTower):
            return visual.maps(self._fed(images))
        if not isinstance(visual, ModifiedResNet):
            raise TypeError("feature maps need an image tower of convolutions; use LPIPS with this CLIP")
        x = self._fed(images)
        for i in (1, 2, 3):
            conv, norm, act = (getattr(visual, f"{part}{i}") for part in ("conv", "bn", "act"))
            x = act(norm(conv(x)))
        maps = [x]
        x = visual.avgpool(x)
        for layer in (visual.layer1, visual.layer2, visual.layer3):
            x = layer(x)
            maps.append(x)
        return maps

    def tokenize(self, texts: list[str]) -> Tensor:
        """B texts → token ids [B, L], cut at the context length."""
        length = self.model.context_length
        if not self.config.vocab:
            return _byte_pairs()(texts, context_length=length)
        end = FIRST_WORD + len(self.config.vocab) + 1  # the largest id: CLIP reads the text's embedding at its argmax
        rows = torch.full((len(texts), length), PAD, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [self._ids.get(word, UNKNOWN) for word in words(text)][: length - 2]
            row[: len(ids) + 2] = torch.tensor([end - 1, *ids, end])
        return rows

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.config.vocab, FIRST_WORD)}

    def _fed(self, images: Tensor, feed: Feed = "proper") -> Tensor:
        side = self.image_size
        if feed == "nearest":
            return F.interpolate(images, (side, side), mode="nearest")
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bicubic", antialias=True)
        if self.config.mean is None or self.config.std is None:
            return images
        mean, std = (images.new_tensor(rgb)[:, None, None] for rgb in (self.config.mean, self.config.std))
        return ((images + 1) / 2 - mean) / std


def words(text: str) -> list[str]:
    """The words of a text, as a small vocabulary sees them."""
    return re.findall(r"\w+", text.casefold())


def _byte_pairs() -> open_clip.SimpleTokenizer:
    return open_clip.tokenizer._tokenizer  # the instance open_clip made at import; reading the table takes a second
