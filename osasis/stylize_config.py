"""Every number of stylization a person may set."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from osasis.diffusion import ddim_timesteps


class StylizeConfig(BaseModel):
    """How photographs are stylized."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    t0_ratio: float | None = Field(
        None, gt=0, lt=1, description="Depth of the structural code, as a part of T; None: as the style was trained."
    )
    encode_steps: int = Field(100, gt=0, description="Forward DDIM steps over all of T.")
    decode_steps: int = Field(50, gt=0, description="Reverse DDIM steps over all of T.")
    lambda_spn: float = Field(0.1, ge=0, description="Weight of the SPN; above 0.1 structure starts to beat style.")
    f_ch: int | None = Field(
        None, ge=0, description="Level at which conditioning switches: those below it (finer) take z_style."
    )
    style_levels: tuple[int, ...] | None = Field(
        None, description="UNet levels (0 = full size) conditioned on z_style, instead of f_ch; None: the base's."
    )
    swap_conditioning: bool = Field(
        False, description="Exchange the codes (Figure 8): z_in on those levels, z_style on the others and the middle."
    )
    style_strength: float = Field(
        1.0, ge=0, le=1, description="From 0, the base's own reconstruction, to 1, the style as trained."
    )
    strength_of: Literal["both", "z", "weights"] = Field(
        "both", description="What style_strength interpolates: z_style, eps_B with its SPN, or both."
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        exclude_if=lambda precision: precision == "float32",  # outputs of before it could be chosen stay valid
        description="bf16: autocast of the UNets; weights and latents stay float32.",
    )
    seed: int = Field(0, description="Of whatever is drawn; DDIM itself draws nothing.")

    @property
    def z_strength(self) -> float:
        """Where the style's code lies between z_in (0) and z_style (1)."""
        return 1.0 if self.strength_of == "weights" else self.style_strength

    @property
    def weight_strength(self) -> float:
        """Where the networks lie between eps_A without SPN (0) and eps_B with it (1)."""
        return 1.0 if self.strength_of == "z" else self.style_strength

    def levels(self, default: tuple[int, ...]) -> tuple[int, ...]:
        """The style's levels; ``default`` where nothing was asked."""
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

    @field_validator("encode_steps", "decode_steps")
    @classmethod
    def _steps_are_possible(cls, steps: int) -> int:
        ddim_timesteps(steps)
        return steps

    @model_validator(mode="after")
    def _levels_are_said_once(self) -> Self:
        if self.f_ch is not None and self.style_levels is not None:
            raise ValueError("f_ch and style_levels say the same thing: give one of them")
        return self
