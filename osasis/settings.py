"""Every number of training a person may set, and the two presets.

The official release differs from the paper in ways that change outputs; each difference is one named field here
and the presets ``official`` and ``paper`` set them all.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from osasis.diffusion import ddim_timesteps

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
    image: str | None = Field(None, description="A photograph to use instead: path or s3:// URI.")


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
    bf16: bool = Field(False, description="bf16 autocast of the UNet; weights and losses stay float32.")
    seed: int = 0

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
    "official": {},
    "paper": {
        "spn": "plain",
        "spn_style": "lambda",
        "spn_init": "zero",
        "matched_t0": True,
        "clip_reconstruction": "l1",
        "style_condition": "style",
        "clamp": False,
        "dropout": False,
    },
}


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
