"""The networks that measure: those of files that a user gave, and in place of what is missing, parts of the base.

A bundle of them is a folder: ``metrics.json`` (:class:`MetricsSpec`) and the files that it names with their sha256. It
is made by ``jobs/import_metrics.py``; nothing is ever downloaded.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from osasis.base import Base
from osasis.errors import BaseError
from osasis.metrics.bundle import feature_maps, style_distance
from osasis.metrics.faces import ArcFace, Embed, Locate, YuNet, id_similarity, middle
from osasis.metrics.inception import FidInception
from osasis.metrics.resize import resized
from osasis.metrics.vit import VitConfig, VitKeys, structure_distance
from osasis.networks.lite import STAGES, Lite, LiteName
from osasis.networks.perceptual import ClipPerceptual, Lpips

SPEC = "metrics.json"
Kind = Literal["inception", "lpips", "dino", "arcface", "yunet", "lite"]
ROLES = ("fid", "lpips", "structure", "id", "face", "style")
"""What networks are needed for; ``face``: finding it."""

_LITE_LEVELS = (0, 1, 2, 4)
"""Stages that stand for style and for LPIPS's maps, as in the judge's."""
_LITE_PLACES = 4
_LITE_SIZE = 256


class MetricFile(BaseModel):
    """One network of a bundle."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(pattern=r"^[a-z]+\.(safetensors|onnx)$")
    sha256: str
    source: str = Field(description="Name of the file that it was made from.")
    source_sha256: str
    config: dict[str, Any] = {}


class MetricsSpec(BaseModel):
    """What ``metrics.json`` holds."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    networks: dict[Kind, MetricFile] = {}

    @property
    def identity(self) -> str:
        """Of the weights alone; 16 hex digits."""
        named = sorted((kind, network.sha256, str(network.config)) for kind, network in self.networks.items())
        return hashlib.sha256(repr(named).encode()).hexdigest()[:16]

    def described(self, base_name: str) -> dict[str, str]:
        """For each of :data:`ROLES`, in words, which network does it."""
        own = {kind: f"{_TITLES[kind]} ({network.source})" for kind, network in self.networks.items()}
        lite, stand_in = own.get("lite"), f"stand-in of {base_name}"
        return {
            "fid": own.get("inception") or lite or f"{stand_in}: its image network's features",
            "lpips": own.get("lpips") or lite or f"{stand_in}: its perceptual distance",
            "structure": own.get("dino") or lite or f"{stand_in}: its image network's coarsest map",
            "id": own.get("arcface") or f"{stand_in}: its semantic encoder",
            "face": own.get("yunet") or "none: the whole picture is taken for the face",
            "style": lite or f"{stand_in}: its image network's features",
        }

    @property
    def stand_ins(self) -> list[str]:
        """Roles for which the network of the literature is not there."""
        needed = {"fid": "inception", "lpips": "lpips", "structure": "dino", "id": "arcface"}
        return [role for role, kind in needed.items() if kind not in self.networks]


_TITLES: dict[Kind, str] = {
    "inception": "Inception-v3", "lpips": "LPIPS", "dino": "DINO ViT", "arcface": "ArcFace", "yunet": "YuNet",
    "lite": "EfficientNet-Lite",
}  # fmt: skip


@dataclass(frozen=True)
class MetricNetworks:
    """Measures of batches [B, 3, S, S] in [-1, 1]."""

    features: Callable[[Tensor], Tensor]
    """[B, D], whose Fréchet distance is FID."""
    lpips: Callable[[Tensor, Tensor], Tensor]
    structure: Callable[[Tensor, Tensor], Tensor]
    style: Callable[[Tensor, Tensor], Tensor]
    """Of pictures and one reference [1, 3, S, S]."""
    embed: Embed
    locate: Locate

    def identity(self, photos: Tensor, results: Tensor) -> Tensor:
        """[B]; NaN where the photograph shows no face."""
        return id_similarity(photos, results, self.locate, self.embed)


@dataclass
class _Parts:
    """Files of a bundle, loaded when they are asked for."""

    folder: Path | None
    spec: MetricsSpec
    device: torch.device
    loaded: dict[str, Any] = field(default_factory=dict)

    def data(self, kind: Kind) -> bytes | None:
        network = self.spec.networks.get(kind)
        if network is None or self.folder is None:
            return None
        path = self.folder / network.file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise BaseError(f"{self.folder}: {network.file} is missing") from None
        if hashlib.sha256(data).hexdigest() != network.sha256:
            raise BaseError(f"{path} is damaged: its sha256 is not the one in {SPEC}")
        return data

    def network(self, kind: Kind, build: Callable[[dict[str, Any]], nn.Module]) -> Any:
        """The network, or None."""
        if self.data(kind) is None or self.folder is None:
            return None
        given = self.spec.networks[kind]
        network = build(given.config)
        network.load_state_dict({k: v.float() for k, v in load_file(self.folder / given.file).items()})
        return network.eval().requires_grad_(False).to(self.device)


def load_spec(folder: Path) -> MetricsSpec:
    """Raises BaseError where the folder holds no bundle of metric networks."""
    try:
        return MetricsSpec.model_validate_json((folder / SPEC).read_bytes())
    except FileNotFoundError:
        raise BaseError(f"{folder} holds no {SPEC}: jobs/import_metrics.py makes it") from None
    except ValidationError as error:
        raise BaseError(f"{folder / SPEC}: {error}") from None


def load_networks(base: Base, folder: Path | None = None) -> MetricNetworks:
    """The networks of a bundle, and stand-ins of the base for what it lacks, on the base's device.

    Raises:
        BaseError: a file of the bundle is missing or damaged, or neither bundle nor base has what a measure needs.
        ImportError: ArcFace is there and onnxruntime is not.
    """
    parts = _Parts(folder, load_spec(folder) if folder else MetricsSpec(), base.device)
    inception = parts.network("inception", lambda _: FidInception())
    lpips = parts.network("lpips", lambda config: Lpips(config["net"]))
    dino = parts.network("dino", lambda config: VitKeys(VitConfig.model_validate(config)))
    lite = parts.network("lite", lambda config: Lite(config["name"]))
    arcface, yunet = parts.data("arcface"), parts.data("yunet")
    places: Callable[[Tensor], Tensor] = dino or (
        (lambda images: _places(lite_maps(lite, images)[_LITE_PLACES]))
        if lite
        else (lambda images: _places(feature_maps(base, images)[-1]))
    )
    measured_by = _lite_style(lite) if lite else lambda images, reference: style_distance(images, reference, base)
    return MetricNetworks(
        features=inception or (_lite_features(lite) if lite else _base_features(base)),
        lpips=lpips or (_lite_lpips(lite) if lite else base.perceptual),
        structure=lambda a, b: structure_distance(places(a), places(b)),
        style=measured_by,
        embed=ArcFace(arcface) if arcface else _base_embed(base),
        locate=YuNet(yunet) if yunet else middle,
    )


def lite_maps(network: Lite, images: Tensor) -> list[Tensor]:
    """Maps of all stages; pictures of up to 128 pixels are seen at 128, larger ones at 256."""
    size = _LITE_SIZE // 2 if max(images.shape[-2:]) <= _LITE_SIZE // 2 else _LITE_SIZE
    maps: list[Tensor] = network(resized(images, size), STAGES)
    return maps


def _places(maps: Tensor) -> Tensor:
    """[B, C, h, w] → [B, h·w, C]."""
    return maps.flatten(2).transpose(1, 2)


def _pooled(maps: list[Tensor]) -> Tensor:
    return torch.cat([level.float().mean((2, 3)) for level in maps], 1)


def _lite_features(network: Lite) -> Callable[[Tensor], Tensor]:
    return lambda images: _pooled(lite_maps(network, images)[-1:])


def _base_features(base: Base) -> Callable[[Tensor], Tensor]:
    return lambda images: _pooled(feature_maps(base, images))


def _lite_lpips(network: Lite) -> Callable[[Tensor, Tensor], Tensor]:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return ClipPerceptual.between(*([lite_maps(network, x)[i] for i in _LITE_LEVELS] for x in (a, b)))

    return distance


def _lite_style(network: Lite) -> Callable[[Tensor, Tensor], Tensor]:
    def distance(images: Tensor, reference: Tensor) -> Tensor:
        return style_distance(
            images, reference, lambda pictures: [lite_maps(network, pictures)[i] for i in _LITE_LEVELS]
        )

    return distance


def _base_embed(base: Base) -> Embed:
    """z_sem in deviations from its mean, where the base tells them: raw codes of any two faces point the same way."""

    def embed(crops: Tensor) -> Tensor:
        z = base.diffae.encoder(resized(crops, base.image_size).to(base.dtype)).float()
        if base.spec.latent_prior is None:
            return z
        _, mean, std = base.latent_prior
        return (z - mean.float()) / std.float()

    return embed


def lite_name(weights: dict[str, Tensor]) -> LiteName | None:
    """Which EfficientNet-Lite these folded weights are; None: none."""
    shapes = {key: value.shape for key, value in weights.items()}
    names: tuple[LiteName, ...] = ("lite0", "lite1", "lite2")
    return next((n for n in names if {k: v.shape for k, v in Lite(n).state_dict().items()} == shapes), None)
