"""The method as a whole: photographs, a style and perhaps a prompt in, pictures out. Everything that stylizes calls it.

Shapes: B photographs, S image size.
"""

from collections.abc import Callable, MutableMapping

from torch import Tensor

from osasis.base import Base
from osasis.checkpoint import Style
from osasis.content import Content
from osasis.settings import StylizeConfig, TextConfig
from osasis.strength import NO_STYLE, without_style
from osasis.stylize import Encoding, encode, encoding_for, stylize
from osasis.text_edit import edit

CodesKey = tuple[Encoding, str | None]
"""How pictures were encoded, and the prompt that z_in was moved by."""

Codes = MutableMapping[CodesKey, Content]
"""Codes of one batch: what styles and prompts share."""

Progress = Callable[[str, int, int], None]
"""Called with (what is done: "encode", "text" or "stylize", steps done, steps in all)."""


def effective(style: Style, config: StylizeConfig, text: str | None, text_config: TextConfig) -> StylizeConfig:
    """The settings as they hold for this style and prompt."""
    if style.style_id == NO_STYLE:
        config = without_style(config)
    return config if text is None else text_config.deepened(config)


def pictures_of(
    base: Base,
    style: Style,
    images: Tensor,
    config: StylizeConfig,
    *,
    text: str | None = None,
    text_config: TextConfig | None = None,
    codes: Codes | None = None,
    chosen: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """``images`` [B, 3, S, S] in [-1, 1] in the style, changed by the prompt first where there is one.

    Args:
        codes: codes of these images from earlier calls; new ones are added.
        chosen: indices of the images that are wanted; None: all.

    Raises:
        ValueError: settings that do not fit the base or the style, or a prompt that the base's CLIP cannot follow.
        BaseError: the base lacks a part that the prompt needs.
    """
    text_config = text_config or TextConfig()
    codes = {} if codes is None else codes
    tell = progress or (lambda stage, done, total: None)
    config = effective(style, config, text, text_config)
    encoding = encoding_for(style, config)
    if (encoding, None) not in codes:
        codes[encoding, None] = encode(base, images, encoding)
        tell("encode", 1, 1)
    if (encoding, text) not in codes:
        plain, prompts = codes[encoding, None], [text or ""]
        (codes[encoding, text],) = edit(base, plain, prompts, text_config, encoding, lambda n, of: tell("text", n, of))
    content = codes[encoding, text]
    pictures = stylize(style, content if chosen is None else content[chosen], config)
    tell("stylize", 1, 1)
    return pictures
