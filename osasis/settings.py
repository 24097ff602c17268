"""Every number of training a person may set, and the two presets.

The official release differs from the paper in ways that change outputs; each difference is one named field here
and the presets ``official`` and ``paper`` set them all.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from osasis.diffusion import ddim_timesteps
from osasis.image import FitMode

Preset = Literal["official", "paper"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LossWeights(_Settings):
    """Weight of each term of Eq. 14; 0 switches a term off (it is then not computed)."""

    cross_domain: float = Field(1.0, ge=0, description="Directional CLIP loss, photo → style (Eq. 12).")
    in_domain: float = Field(0.5, ge=0, description="Directional CLIP loss within each domain.")
    recon_clip: float = Field(30.0, ge=0, description="CLIP reconstruction of the reference.")
    recon_l1: float = Field(10.0, ge=0, description="L1 reconstruction of the reference.")
    recon_perceptual: float = Field(10.0, ge=0, description="LPIPS reconstruction of the reference.")


class StylePhotoConfig(_Settings):
    """How the reference's photographic counterpart is found (Eq. 9-10)."""

    steps: int = Field(50, gt=0, description="Respaced DDPM steps of the photo prior.")
    t0_ratio: float = Field(0.5, gt=0, lt=1, description="How far the reference is noised.")
    candidates: int = Field(4, gt=0, description="Draws; the one nearest to the reference is kept.")
    matched_t0: bool = Field(False, description="Denoise from the very level that it was noised to, not one below.")
    image: str | None = Field(None, description="A photograph to use instead: path or s3:// URI.")


class ContentConfig(_Settings):
    """Which photographs a style is trained on."""

    photos: str | None = Field(None, description="Folder or s3:// prefix of photographs to train on.")
    source: Literal["bank", "prior"] = Field(
        "bank", description="Without photos: the base's bank, where it has one; or drawn from its latent prior."
    )
    count: int = Field(64, gt=0, description="Photographs taken (the first by name) or drawn; a bank is taken whole.")


class TrainConfig(_Settings):
    """How one style is finetuned from a base."""

    iterations: int = Field(200, gt=0, description="Outer iterations, each a whole reverse trajectory.")
    batch_size: int = Field(8, gt=0, description="Content photographs per iteration.")
    learning_rate: float = Field(5e-6, gt=0, description="Adam rate of eps_B.")
    spn_learning_rate: float = Field(1e-4, gt=0, description="Adam rate of the SPN.")
    t0_ratio: float = Field(0.5, gt=0, lt=1, description="Depth of the structural code, as a part of T.")
    encode_steps: int = Field(50, gt=0, description="Forward DDIM steps over all of T.")
    decode_steps: int = Field(20, gt=0, description="Reverse DDIM steps over all of T; one update at each after t0.")
    lambda_spn: float = Field(0.1, ge=0, description="Weight of the SPN on the content branch (Eq. 13).")
    weights: LossWeights = LossWeights()
    style_photo: StylePhotoConfig = StylePhotoConfig()
    content: ContentConfig = ContentConfig()
    fit: FitMode = Field("squash", description="How pictures become square: squash, crop or pad.")
    clips: tuple[str, ...] = Field(
        (),
        description='CLIPs of the base whose losses are averaged, by name ("main" is the first); none: that alone.',
    )
    clip_input: Literal["nearest", "proper"] = Field(
        "nearest", description="What CLIP sees: a nearest-neighbour resize in [-1, 1], or what it was trained on."
    )
    clip_embeddings: Literal["raw", "unit"] = Field(
        "raw", description="Directions are between embeddings as CLIP gives them, or scaled to unit length."
    )
    spn: Literal["time", "plain"] = Field("time", description="SPN sees the respaced step's index, or no time.")
    spn_style: Literal["one", "lambda"] = Field("one", description="Weight of the SPN on the style branch.")
    spn_init: Literal["random", "zero"] = Field(
        "random", description="The SPN's last layer at the start; zero: finetuning begins at the base exactly."
    )
    matched_t0: bool = Field(False, description="Decode from the very level that encoding reached.")
    clip_reconstruction: Literal["cosine", "l1"] = Field("cosine", description="Form of the CLIP reconstruction.")
    style_condition: Literal["photo", "style"] = Field(
        "photo", description="z of the style branch in training: Enc(I_A_style) or Enc(I_B_style)."
    )
    clamp: bool = Field(True, description="Clamp predicted x0 to [-1, 1] at every step.")
    dropout: bool = Field(True, description="Keep the UNet's dropout active while finetuning.")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: autocast of the UNet; weights and losses stay float32."
    )
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _former_name_of_precision(cls, values: Any) -> Any:
        """Bases and styles of former versions say ``bf16: true``."""
        if isinstance(values, dict) and isinstance(values.get("bf16"), bool):
            said = "bf16" if values["bf16"] else "float32"
            return {"precision": said} | {name: value for name, value in values.items() if name != "bf16"}
        return values

    @model_validator(mode="after")
    def _steps_are_possible(self) -> Self:
        _check_steps(self)
        return self


def _check_steps(config: TrainConfig) -> None:
    for name in ("encode_steps", "decode_steps"):
        try:
            ddim_timesteps(getattr(config, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


_PRESETS: dict[Preset, dict[str, Any]] = {
    "official": {
        "spn": "time",
        "spn_style": "one",
        "spn_init": "random",
        "matched_t0": False,
        "clip_reconstruction": "cosine",
        "clip_input": "nearest",
        "clip_embeddings": "raw",
        "style_condition": "photo",
        "clamp": True,
        "dropout": True,
        "style_photo": {"matched_t0": False},
        "fit": "squash",
    },
    "paper": {
        "spn": "plain",
        "spn_style": "lambda",
        "spn_init": "zero",
        "matched_t0": True,
        "clip_reconstruction": "l1",
        "clip_input": "proper",
        "clip_embeddings": "unit",
        "style_condition": "style",
        "clamp": False,
        "dropout": False,
        "style_photo": {"matched_t0": True},
        "fit": "crop",
    },
}
"""The differences of release and paper; docs/method.md explains each."""


def train_config(preset: Preset, *overrides: dict[str, Any]) -> TrainConfig:
    """The preset with ``overrides`` laid over it, later ones winning; nested tables are merged."""
    values: dict[str, Any] = {}
    for layer in (_PRESETS[preset], *overrides):
        for key, value in layer.items():
            if isinstance(value, dict) and isinstance(values.get(key), dict):
                values[key] = {**values[key], **value}
            else:
                values[key] = value
    return TrainConfig.model_validate(values)
