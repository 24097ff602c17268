"""Every setting of the method: training (:class:`TrainConfig`), stylization, text-driven manipulation, density.

The official release differs from the paper in ways that change outputs; each difference is one named field of
:class:`TrainConfig`, and the presets ``official`` and ``paper`` set them all.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from osasis.diffusion import ddim_timesteps
from osasis.full_size import Size
from osasis.image import FitMode
from osasis.imaging.encode import QUALITY, FileFormat
from osasis.networks.adapters import PLACES, Place
from osasis.networks.clip import ClipConfig, words
from osasis.networks.layers import absent
from osasis.networks.spn import WIDTH
from osasis.precision import current_precision
from osasis.upsampling import Detail

Preset = Literal["official", "paper"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``iterations: true`` would otherwise be 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float, int | None, float | None):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


def _respaced(steps: int) -> int:
    ddim_timesteps(steps)
    return steps


def _unused(weight: float) -> bool:
    """Left out where it is written: styles trained before a term could be chosen keep their identity."""
    return weight == 0


DdimSteps = Annotated[int, Field(gt=0), AfterValidator(_respaced)]
"""A number of DDIM steps that T can be respaced to."""


class LossWeights(_Settings):
    """Weight of each term of Eq. 14; 0 switches a term off (it is then not computed)."""

    cross_domain: float = Field(1.0, ge=0, description="Directional CLIP loss, photo → style (Eq. 12).")
    in_domain: float = Field(0.5, ge=0, description="Directional CLIP loss within each domain.")
    recon_clip: float = Field(30.0, ge=0, description="CLIP reconstruction of the reference.")
    recon_l1: float = Field(10.0, ge=0, description="L1 reconstruction of the reference.")
    recon_perceptual: float = Field(10.0, ge=0, description="LPIPS reconstruction of the reference.")
    # Neither the paper's nor the release's: 0 in both presets.
    style_moments: float = Field(
        0.0,
        ge=0,
        exclude_if=_unused,
        description="Moments of pixels and features: stylized contents against the reference.",
    )
    style_colors: float = Field(
        0.0, ge=0, exclude_if=_unused, description="Distribution of colours: stylized contents against the reference."
    )
    self_similarity: float = Field(
        0.0, ge=0, exclude_if=_unused, description="Self-similarity of features: each content against its stylization."
    )
    edges: float = Field(
        0.0, ge=0, exclude_if=_unused, description="Luminance gradients: each content against its stylization."
    )

    @property
    def perceptual_terms(self) -> list[str]:
        """Terms in use that the perceptual network computes."""
        return [name for name in ("recon_perceptual", "style_moments", "self_similarity") if getattr(self, name)]

    @property
    def clip_terms(self) -> list[str]:
        """Terms in use that CLIP computes."""
        return [name for name in ("cross_domain", "in_domain", "recon_clip") if getattr(self, name)]


class StylePhotoConfig(_Settings):
    """How the reference's photographic counterpart is found (Eq. 9-10)."""

    steps: int = Field(50, gt=0, description="Respaced DDPM steps of the photo prior.")
    t0_ratio: float = Field(0.5, gt=0, lt=1, description="How far the reference is noised.")
    candidates: int = Field(4, gt=0, description="Draws; the one nearest to the reference is kept.")
    matched_t0: bool = Field(False, description="Denoise from the level that it was noised to, not from the one below.")
    image: str | None = Field(None, description="A photograph to use instead.", json_schema_extra={"metavar": "URI"})


class ContentConfig(_Settings):
    """Which photographs a style is trained on."""

    photos: str | None = Field(
        None, description="Folder or prefix of photographs to train on.", json_schema_extra={"metavar": "URI"}
    )
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
    rate_decay: float = Field(
        0.0, ge=0, le=1, exclude_if=_unused, description="Last part of the updates, over which both rates fall to 0."
    )
    adapter_rank: int = Field(
        0, ge=0, exclude_if=_unused, description="Train low-rank adapters instead of eps_B's weights; 0: all weights."
    )
    adapter_places: tuple[Place, ...] = Field(
        PLACES,
        min_length=1,
        exclude_if=lambda places: places == PLACES,
        description="What of the UNet is adapted (osasis/networks/adapters.py).",
    )
    start_from: str = Field(
        "none",
        min_length=1,
        exclude_if=lambda start: start == "none",
        description="Where training begins: none, the base itself; nearest, the average of the catalog's two nearest"
        " styles of this base, if it has some; the average of styles by id, id@version, id@alias or tag:TAG, separated"
        " by commas; or a file of jobs/train_start.py, by path or URI.",
    )
    patience: int = Field(
        0,
        ge=0,
        exclude_if=_unused,
        description="Checks without a better score on held-out contents after which training ends, with the best"
        " weights; 0: it does all iterations, and keeps the last.",
    )
    check_every: int = Field(4, gt=0, exclude_if=lambda every: every == 4, description="Iterations between checks.")
    held_out: int = Field(
        4, gt=0, exclude_if=lambda count: count == 4, description="Contents that are checked on, and not trained on."
    )
    t0_ratio: float = Field(0.5, gt=0, lt=1, description="Depth of the structural code, as a part of T.")
    encode_steps: DdimSteps = Field(50, description="Forward DDIM steps over all of T.")
    decode_steps: DdimSteps = Field(20, description="Reverse DDIM steps over all of T; one update at each after t0.")
    lambda_spn: float = Field(0.1, ge=0, description="Weight of the SPN on the content branch (Eq. 13).")
    weights: LossWeights = LossWeights()
    self_similarity_margin: float = Field(
        0.0, ge=0, exclude_if=_unused, description="Part of each content's self_similarity that costs nothing."
    )
    color_match: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=_unused,
        description="Part of the way that a stylized picture's mean and deviation of red, green and blue are brought to"
        " the reference's, when stylizing.",
    )
    style_photo: StylePhotoConfig = StylePhotoConfig()
    content: ContentConfig = ContentConfig()
    fit: FitMode = Field("squash", description="How pictures become square: squash, crop or pad.")
    clips: tuple[str, ...] = Field(
        (),
        description='CLIPs of the base whose losses are averaged, by name ("main" is the first); default: that one.',
    )
    perceptuals: tuple[str, ...] = Field(
        (),
        exclude_if=absent,  # styles trained before keep their identity
        description='Perceptual distances of the base that are averaged, by network ("main" is the first); none: that '
        "alone.",
    )
    clip_input: Literal["nearest", "proper"] = Field(
        "nearest", description="What CLIP sees: a nearest-neighbour resize in [-1, 1], or what it was trained on."
    )
    clip_embeddings: Literal["raw", "unit"] = Field(
        "raw", description="Directions are between embeddings as CLIP gives them, or scaled to unit length."
    )
    clip_image: Literal["joint", "statistics"] = Field(
        "joint",
        exclude_if=lambda said: said == "joint",  # styles trained before it could be chosen keep their identity
        description="Which embedding of a picture CLIP's losses see: the one it shares with text, or the statistics"
        " that it is projected from (networks/statistics.py).",
    )
    spn: Literal["time", "plain"] = Field(
        "time", description="Whether the SPN sees the index of the respaced step, or no time."
    )
    spn_width: int = Field(
        WIDTH,
        gt=0,
        multiple_of=16,
        exclude_if=lambda width: width == WIDTH,  # styles trained before it could be chosen keep their identity
        description="Channels of the SPN. At 64 pixels the release's is a third of an update.",
    )
    spn_style: Literal["one", "lambda"] = Field("one", description="Weight of the SPN on the style branch.")
    spn_init: Literal["random", "zero"] = Field(
        "random", description="The SPN's last layer at the start; zero: finetuning begins at the base exactly."
    )
    spn_steps: Literal["each", "spread"] = Field(
        "each",
        exclude_if=lambda said: said == "each",  # styles trained before it could be chosen keep their identity
        description="What the SPN adds in more steps than training took: as much at each, or as much in total.",
    )
    matched_t0: bool = Field(False, description="Decode from the level that encoding reached, not from the one below.")
    clip_reconstruction: Literal["cosine", "l1"] = Field("cosine", description="Form of the CLIP reconstruction.")
    style_condition: Literal["photo", "style"] = Field(
        "photo", description="z of the style branch in training: Enc(I_A_style) or Enc(I_B_style)."
    )
    clamp: bool = Field(True, description="Clamp predicted x0 to [-1, 1] at every step.")
    dropout: bool = Field(True, description="Keep the UNet's dropout active while finetuning.")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: autocast of the UNet; weights and losses stay float32."
    )
    micro_batch: int = Field(
        0,
        ge=0,
        exclude_if=_unused,
        description="Contents whose gradient is computed at once; an update is still of batch_size. 0: all of them.",
    )
    recompute: bool = Field(
        False,
        exclude_if=absent,
        description="Compute the UNet's activations again for the gradient, instead of keeping them: less memory, a"
        " third more work.",
    )
    seed: int = Field(0, description="Seed of everything random.")

    _former = model_validator(mode="before")(current_precision)


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
    for layer in (_PRESETS[preset], *map(current_precision, overrides)):
        for key, value in layer.items():
            if isinstance(value, dict) and isinstance(values.get(key), dict):
                values[key] = {**values[key], **value}
            else:
                values[key] = value
    return TrainConfig.model_validate(values)


Quality = Literal["exact", "standard", "draft"]

FORWARDS: Final[dict[Quality, tuple[int, int]]] = {"standard": (8, 6), "draft": (5, 4)}
"""Forwards of the network (to encode, to decode) where it is not exact."""


class StylizeConfig(_Settings):
    """How photographs are stylized."""

    model_config = ConfigDict(title="method")

    t0_ratio: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Depth of the structural code, as a fraction of T; default: as in training.",
    )
    encode_steps: DdimSteps = Field(100, description="Forward DDIM steps over all of T.")
    decode_steps: DdimSteps = Field(50, description="Reverse DDIM steps over all of T.")
    lambda_spn: float = Field(0.1, ge=0, description="Weight of the SPN; above 0.1 structure starts to beat style.")
    f_ch: int | None = Field(
        None, ge=0, description="Level at which conditioning switches: those below it (finer) take z_style."
    )
    style_levels: tuple[int, ...] | None = Field(
        None, description="UNet levels (0 = full size) conditioned on z_style, instead of f_ch; default: the base's."
    )
    swap_conditioning: bool = Field(
        False, description="Exchange the codes (Figure 8): z_in on those levels, z_style on the others and the middle."
    )
    style_strength: float = Field(
        1.0, ge=0, le=1, description="From 0, the base's own reconstruction, to 1, the style as trained."
    )
    color_match: float | None = Field(
        None,
        ge=0,
        le=1,
        exclude_if=lambda part: part is None,  # outputs of before it could be chosen stay valid
        description="Part of the way that mean and deviation of each colour channel are brought to the reference's; "
        "default: as the style was trained with.",
    )
    strength_of: Literal["both", "z", "weights"] = Field(
        "both", description="What style_strength interpolates: z_style, eps_B with its SPN, or both."
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        exclude_if=lambda precision: precision == "float32",  # outputs of before it could be chosen stay valid
        description="bf16: autocast of the UNets; weights and latents stay float32.",
    )
    quality: Quality = Field(
        "exact",
        exclude_if=lambda quality: quality == "exact",
        description="exact: the network at every step of DDIM; standard and draft: at some, and extrapolated in "
        "between, so that pictures differ a little (docs/method.md).",
    )
    seed: int = Field(0, description="Seed of everything random; DDIM itself is deterministic.")

    @property
    def z_strength(self) -> float:
        """Where the style's code lies between z_in (0) and z_style (1)."""
        return 1.0 if self.strength_of == "weights" else self.style_strength

    @property
    def weight_strength(self) -> float:
        """Where the networks lie between eps_A without SPN (0) and eps_B with it (1)."""
        return 1.0 if self.strength_of == "z" else self.style_strength

    def levels(self, default: tuple[int, ...]) -> tuple[int, ...]:
        """The style's levels; ``default`` if not set."""
        if self.f_ch is not None:
            return tuple(range(self.f_ch))
        return default if self.style_levels is None else self.style_levels

    def check_levels(self, count: int) -> None:
        """Refuse levels that a UNet of ``count`` levels lacks.

        Raises:
            ValueError: there are some.
        """
        if self.f_ch is not None and self.f_ch > count:
            raise ValueError(f"f_ch is {self.f_ch}, but the base's UNet has {count} levels: give 0 to {count}")
        if wrong := [level for level in self.style_levels or () if level not in range(count)]:
            raise ValueError(f"style_levels {wrong} are not among the base's levels, 0 to {count - 1}")

    @model_validator(mode="after")
    def _levels_are_said_once(self) -> Self:
        if self.f_ch is not None and self.style_levels is not None:
            raise ValueError("f_ch and style_levels set the same thing: give only one")
        return self


_FUNCTION_WORDS: Final = frozenset({"a", "an", "and", "in", "no", "not", "of", "on", "or", "the", "with", "without"})
"""Words without meaning of their own."""


class TextConfig(_Settings):
    """How z_in is moved from a source text towards a prompt."""

    source_text: str = Field(
        "a photo of a person", min_length=1, description="Text that describes the unchanged pictures."
    )
    text_template: str = Field(
        "{source} {text}", pattern=r"\{text\}", description="The target text, from the source text and the prompt."
    )
    text_strength: float = Field(
        1.0, ge=0, le=10, description="How far z_in moves: 0 not at all, 1 as optimized, above 1 further the same way."
    )
    text_steps: int = Field(30, gt=0, description="Adam steps on z_in.")
    text_learning_rate: float = Field(0.1, gt=0, description="Adam rate, in standard deviations of z_sem.")
    text_l2: float = Field(0.1, ge=0, description="Weight of the pull of z_in to where it was, in squared deviations.")
    text_identity: float = Field(0.0, ge=0, description="Weight of the perceptual distance to the unchanged picture.")
    text_pixel: float = Field(0.0, ge=0, description="Weight of the L1 distance to the unchanged picture.")
    text_reach: float = Field(
        1.0, ge=0, description="Weight of reaching as far as the text does, in CLIP's space; 0: direction alone."
    )
    text_decode_steps: int = Field(3, gt=0, description="DDIM steps from t0 of the decoding that is optimized through.")
    text_t0_ratio: float = Field(
        0.8, gt=0, lt=1, description="Depth of the structural code where there is a prompt and t0_ratio is not given."
    )

    def target_text(self, prompt: str) -> str:
        """The full target text for a prompt."""
        return self.text_template.replace("{source}", self.source_text).replace("{text}", prompt)

    def deepened(self, config: StylizeConfig) -> StylizeConfig:
        """``config`` with the depth for prompts, unless it sets one."""
        return config if config.t0_ratio is not None else config.model_copy(update={"t0_ratio": self.text_t0_ratio})

    def check_prompt(self, prompt: str, clip: ClipConfig | None) -> list[str]:
        """Words of the target text that the base's CLIP reads as one unknown word.

        Raises:
            ValueError: the base cannot follow the prompt: it has no CLIP, or knows no word that the prompt adds.
        """
        if clip is None:
            raise ValueError("the base has no CLIP, which text needs")
        target = self.target_text(prompt)
        unknown = clip.unknown_words(target)
        added = set(words(prompt)) - _FUNCTION_WORDS
        if not added:
            raise ValueError(f"{prompt!r} has no word that could change a picture")
        if added <= set(unknown):
            raise ValueError(
                f"{prompt!r}: the base's CLIP knows none of {', '.join(sorted(added))}; its {len(clip.vocab)} words "
                "are in the vocabulary of its base.json"
            )
        if words(target) == words(self.source_text):
            raise ValueError(f"{prompt!r} and the source text are the same text")
        return unknown


class PictureConfig(_Settings):
    """How stylized pictures come out."""

    size: Size = Field(
        "base",
        description="base: the square that the base makes; original: the whole picture in its own size; a number: the "
        "same with a longer side of at most so many pixels.",
    )
    detail: Detail = Field(
        "residual",
        description="How the base's picture is enlarged. guided: the photograph's own detail in the style's colours; "
        "residual: also strokes that have no edge there, and the reference's contrast of fine detail; none: no detail.",
    )
    format: FileFormat = Field("png", description="File format of the pictures.")
    format_quality: int | None = Field(
        None, ge=1, le=100, description=f"Quality of JPEG and WebP, 1 to 100; default: {QUALITY}."
    )

    def identity(self) -> dict[str, Any]:
        """What of these settings changes files; nothing where all are as they always were."""
        default = PictureConfig().described()
        return {} if self.described() == default else self.described()

    def described(self) -> dict[str, Any]:
        """The settings that have an effect."""
        detail = {} if self.size == "base" else {"detail": self.detail}
        quality = {} if self.format == "png" else {"quality": self.file_quality}
        return {"size": self.size, **detail, "format": self.format, **quality}

    @property
    def file_quality(self) -> int:
        return QUALITY if self.format_quality is None else self.format_quality

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.format_quality is not None and self.format == "png":
            raise ValueError("format_quality is of JPEG and WebP: PNG keeps everything")
        if self.size == "base" and "detail" in self.model_fields_set and self.detail != "residual":
            raise ValueError("detail is of enlarged pictures: give a size, original or a number of pixels")
        return self


class DensityConfig(_Settings):
    """How density is measured."""

    steps: DdimSteps = Field(20, description="Reverse DDIM steps from pure noise.")
    draws: int = Field(1, gt=0, description="Reconstructions a picture, over which the distance is averaged.")
    seed: int = Field(0, description="Seed of the noise, which is drawn afresh for each picture.")
