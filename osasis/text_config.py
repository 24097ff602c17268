"""Every number of text-driven manipulation a person may set, and what texts a base can follow."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from osasis.networks.clip import ClipConfig, words
from osasis.stylize_config import StylizeConfig

_FUNCTION_WORDS: Final = frozenset({"a", "an", "and", "in", "no", "not", "of", "on", "or", "the", "with", "without"})
"""Words that say nothing alone."""


class TextConfig(BaseModel):
    """How z_in is moved from a source text towards a prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_text: str = Field("a photo of a person", min_length=1, description="What the pictures show, unchanged.")
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
        """The whole text that a prompt stands for."""
        return self.text_template.replace("{source}", self.source_text).replace("{text}", prompt)

    def deepened(self, config: StylizeConfig) -> StylizeConfig:
        """``config`` with the depth that a prompt needs, where none was asked for."""
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
            raise ValueError(f"{prompt!r} says nothing that a picture could be changed by")
        if added <= set(unknown):
            raise ValueError(
                f"{prompt!r}: the base's CLIP knows none of {', '.join(sorted(added))}; its {len(clip.vocab)} words "
                "are in the vocabulary of its base.json"
            )
        if words(target) == words(self.source_text):
            raise ValueError(f"{prompt!r} and the source text come to the same text")
        return unknown
