"""Base bundles: the frozen networks that every style of a domain starts from.

A bundle is a folder: ``base.json`` (:class:`BaseSpec`) and safetensors, one file per part; float16, unless imported.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from osasis.diffusion import Schedule
from osasis.errors import BaseError
from osasis.networks.clip import ClipConfig, ClipEncoder
from osasis.networks.diffae import DiffAE
from osasis.networks.encoder import EncoderConfig
from osasis.networks.latent_prior import LatentPrior, LatentPriorConfig
from osasis.networks.layers import absent
from osasis.networks.perceptual import PerceptualConfig, PerceptualDistance, build_perceptual
from osasis.networks.unet import UNet, UNetConfig
from osasis.precision import Precision, computing, exact_float32, weights_dtype

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=BaseModel)

_BUNDLED = Path(__file__).parent / "bases"
_SPEC = "base.json"


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.safetensors$")]


class Provenance(BaseModel):
    """Where a base comes from; informational only."""

    model_config = ConfigDict(extra="forbid")

    made_by: str = ""
    data: str = ""
    license: str = ""
    notes: str = ""


class BaseSpec(BaseModel):
    """What ``base.json`` holds."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    image_size: int = Field(gt=0)
    unet: UNetConfig
    encoder: EncoderConfig
    latent_prior: LatentPriorConfig | None = None
    photo_prior: UNetConfig | None = None
    clip: ClipConfig | None = None
    perceptual: PerceptualConfig | None = None
    more_clip: dict[Name, ClipConfig] = Field(
        {}, exclude_if=absent, description="Further CLIPs for the losses, by name."
    )
    more_perceptual: dict[Name, PerceptualConfig] = Field(
        {}, exclude_if=absent, description="Further perceptual distances, by their network."
    )
    style_levels: tuple[int, ...] = Field(description="UNet levels conditioned on z_style by default.")
    train_defaults: dict[str, Any] = Field({}, description="TrainConfig fields with other defaults for this base.")
    provenance: Provenance = Provenance()
    files: dict[FileName, str] = Field({}, description="sha256 of every weights file.")


class Base:
    """A loaded bundle: frozen networks on one device, in evaluation mode, computing in one precision."""

    def __init__(
        self,
        spec: BaseSpec,
        fingerprint: str,
        tensors: dict[str, dict[str, Tensor]],
        device: str,
        precision: Precision = "float32",
    ) -> None:
        self.spec = spec
        self.fingerprint = fingerprint
        self.device = torch.device(device)
        self.precision = precision
        self.dtype = weights_dtype(precision)
        self._tensors = tensors
        self.diffae: DiffAE = self._network(DiffAE(spec.unet, spec.encoder), "diffae")
        self.style_levels = spec.style_levels
        self._clips: dict[str, ClipEncoder] = {}
        self._perceptuals: dict[str, PerceptualDistance] = {}

    def on(self, device: str) -> "Base":
        """The same bundle on another device."""
        return Base(self.spec, self.fingerprint, self._tensors, device, self.precision)

    @property
    def image_size(self) -> int:
        return self.spec.image_size

    def ddim(self, steps: int) -> Schedule:
        """The DiffAE's process respaced to ``steps``."""
        return Schedule.ddim(steps, self.spec.unet.beta_end)

    @cached_property
    def latent_prior(self) -> tuple[LatentPrior, Tensor, Tensor]:
        """The latent prior with the mean and deviation [D] that de-normalize its samples."""
        config = self._require("latent_prior", self.spec.latent_prior)
        tensors = dict(self._tensors["latent_prior"])
        mean, std = (tensors.pop(name).to(self.device, self.dtype) for name in ("conds_mean", "conds_std"))
        prior = LatentPrior(config)
        _load(prior, tensors, "latent_prior")
        return self._frozen(prior), mean, std

    @cached_property
    def photo_prior(self) -> UNet:
        """The unconditional DDPM of the photographic domain."""
        return self._network(UNet(self._require("photo_prior", self.spec.photo_prior)), "photo_prior")

    @cached_property
    def clip(self) -> ClipEncoder:
        """The main CLIP."""
        return self._network(ClipEncoder(self._require("clip", self.spec.clip)), "clip")

    def clips(self, names: Sequence[str] = ()) -> list[ClipEncoder]:
        """CLIPs by name, "main" for the main one; without names, the main one only.

        Raises:
            BaseError: the bundle lacks one.
        """
        return [self.clip if name == "main" else self._more_clip(name) for name in names or ("main",)]

    @cached_property
    def perceptual(self) -> PerceptualDistance:
        """The main perceptual distance: LPIPS, or its form on CLIP features."""
        return self._distance("perceptual", self.spec.perceptual)

    def perceptuals(self, names: Sequence[str] = ()) -> list[PerceptualDistance]:
        """Perceptual distances by name, "main" for the main one; without names, the main one only.

        Raises:
            BaseError: the bundle lacks one.
        """
        return [self.perceptual if name == "main" else self._more_perceptual(name) for name in names or ("main",)]

    @property
    def bank_tensors(self) -> dict[str, Tensor]:
        """The content bank as stored, or empty."""
        return self._tensors.get("content_bank", {})

    def eps(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """eps_A: the frozen UNet."""
        with computing(self.precision, self.device):
            return self.diffae.unet(x, t, z).to(x.dtype)

    def _more_clip(self, name: str) -> ClipEncoder:
        if name not in self._clips:
            part = f"clip-{name}"
            self._clips[name] = self._network(ClipEncoder(self._require(part, self.spec.more_clip.get(name))), part)
        return self._clips[name]

    def _more_perceptual(self, name: str) -> PerceptualDistance:
        if name not in self._perceptuals:
            self._perceptuals[name] = self._distance(f"perceptual-{name}", self.spec.more_perceptual.get(name))
        return self._perceptuals[name]

    def _distance(self, part: str, config: PerceptualConfig | None) -> PerceptualDistance:
        if config is None:
            raise BaseError(f"base {self.spec.name} has no {part} backbone, which this work needs")
        if config.kind == "clip":
            return self._frozen(build_perceptual(config, self.clip))
        return self._network(build_perceptual(config, None), part)

    def _network(self, network: M, part: str) -> M:
        if part not in self._tensors:
            raise BaseError(f"base {self.spec.name} has no {part}")
        _load(network, self._tensors[part], part)
        return self._frozen(network)

    def _frozen(self, network: M) -> M:
        return network.eval().requires_grad_(False).to(self.device, self.dtype).to(memory_format=torch.channels_last)

    def _require(self, part: str, config: C | None) -> C:
        if config is None or part not in self._tensors:
            raise BaseError(f"base {self.spec.name} has no {part}, which this work needs")
        return config


def bundled_bases() -> dict[str, Path]:
    """Names and folders of the bases that come with the package."""
    return {folder.parent.name: folder.parent for folder in sorted(_BUNDLED.glob(f"*/{_SPEC}"))}


def base_location(name: str | Path) -> str:
    """Where the base ``name`` is: the folder of a bundled one, else ``name`` itself, a folder or URI."""
    return str(bundled_bases().get(str(name), name))


def load_spec(folder: Path) -> BaseSpec:
    """``base.json`` of a bundle.

    Raises:
        BaseError: there is none, or it is not valid.
    """
    path = folder / _SPEC
    try:
        return BaseSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BaseError(f"{folder} is not a base bundle: it has no {_SPEC}") from None
    except ValidationError as error:
        raise BaseError(f"{path}: {error}") from None


def fingerprint(spec: BaseSpec) -> str:
    """Identity of a base: its networks' configurations and weights. 16 hex digits.

    Names, notes, defaults, the content bank and what a base has beyond its main CLIP and distance are left out: they
    change no style trained before.
    """
    networks = spec.model_dump(
        mode="json", include={"image_size", "unet", "encoder", "latent_prior", "photo_prior", "clip", "perceptual"}
    )
    without = ("content_bank", "clip-", "perceptual-")
    weights = {name: digest for name, digest in spec.files.items() if not name.startswith(without)}
    return hashlib.sha256(json.dumps([networks, weights], sort_keys=True).encode()).hexdigest()[:16]


def clip_fingerprint(spec: BaseSpec) -> str | None:
    """Identity of the base's CLIP: its configuration and weights. 16 hex digits; None without a CLIP.

    Bases that share a CLIP share its embeddings, which those of any other cannot be compared with.
    """
    weights = spec.files.get("clip.safetensors")
    if spec.clip is None or weights is None:
        return None
    config = spec.clip.model_dump(mode="json")
    return hashlib.sha256(json.dumps([config, weights], sort_keys=True).encode()).hexdigest()[:16]


def load_base(folder: Path, device: str = "cpu", *, precision: Precision = "float32", check: bool = True) -> Base:
    """Load a bundle from a local folder; parts beyond the DiffAE are built on first use.

    Args:
        check: compare every file with its sha256.

    Raises:
        BaseError: the folder is not a bundle, or a file is missing or not what ``base.json`` says.
    """
    exact_float32()
    spec = load_spec(folder)
    tensors = {}
    for name, digest in spec.files.items():
        path = folder / name
        try:
            if check and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise BaseError(f"{path} is damaged: its sha256 is not the one in {_SPEC}")
            tensors[path.stem] = load_file(path)
        except FileNotFoundError:
            raise BaseError(f"{folder}: {name} is missing") from None
        except SafetensorError as error:
            raise BaseError(f"{path}: {error}") from None
    return Base(spec, fingerprint(spec), tensors, device, precision)


def load_clip(spec: BaseSpec, weights: Path) -> ClipEncoder:
    """The CLIP of a bundle alone, on the CPU.

    Raises:
        BaseError: the base has none, or ``weights`` is not the file that ``spec`` describes.
    """
    if spec.clip is None:
        raise BaseError(f"base {spec.name} has no clip, which this work needs")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != spec.files.get("clip.safetensors"):
        raise BaseError(f"{weights} is damaged: its sha256 is not the one in {_SPEC}")
    clip = ClipEncoder(spec.clip)
    _load(clip, load_file(weights), "clip")
    return clip.eval().requires_grad_(False)


def save_base(folder: Path, spec: BaseSpec, parts: dict[str, dict[str, Tensor]], *, exact: bool = False) -> BaseSpec:
    """Write ``parts`` and then ``base.json``; parts already in the folder and its spec are kept.

    Weights are rounded to float16, unless they have to stay ``exact``.

    Returns the spec with the sha256 of every file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = dict(spec.files)
    for part, tensors in parts.items():
        path = folder / f"{part}.safetensors"
        rounded = {k: v.half() if v.is_floating_point() and not exact else v for k, v in tensors.items()}
        save_file({k: v.contiguous() for k, v in rounded.items()}, path)
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = spec.model_copy(update={"files": dict(sorted(files.items()))})
    temporary = folder / f".{_SPEC}.tmp"
    temporary.write_text(spec.model_dump_json(indent=2, exclude_none=True) + "\n")
    temporary.replace(folder / _SPEC)
    return spec


def _load(network: nn.Module, tensors: dict[str, Tensor], part: str) -> None:
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError as error:
        raise BaseError(f"{part}: weights do not fit the configuration in {_SPEC}: {error}") from None
