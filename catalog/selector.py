"""How styles are named on command lines: ``van-gogh-1889, hokusai@2, monet@best, tag:painting, all``."""

import re
from dataclasses import dataclass

from catalog.output_names import NO_STYLE

STYLE_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
ALIAS = r"^[a-z][a-z0-9-]{0,62}$"

_RESERVED = {"all": "it selects every style", NO_STYLE: "it stands for the base alone"}


class SelectorError(ValueError):
    """A selection that cannot be read; the message names every part at fault."""


@dataclass(frozen=True)
class Style:
    """``id``, ``id@version`` or ``id@alias``; at most one of ``version`` and ``alias`` is given."""

    style_id: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        at = self.version if self.version is not None else self.alias
        return self.style_id if at is None else f"{self.style_id}@{at}"


@dataclass(frozen=True)
class Tagged:
    """``tag:name``: every style whose latest version has the tag."""

    tag: str

    def __str__(self) -> str:
        return f"tag:{self.tag}"


@dataclass(frozen=True)
class Every:
    """``all``."""

    def __str__(self) -> str:
        return "all"


Term = Style | Tagged | Every


def check_style_id(style_id: str) -> str:
    """``style_id`` itself; raises ValueError if it is none, or a word that selections give another meaning."""
    if not re.fullmatch(STYLE_ID, style_id):
        raise ValueError(f"{style_id!r} is not a style id: lowercase letters, digits, '-'; at most 63, not '-' first")
    if style_id in _RESERVED:
        raise ValueError(f"{style_id!r} cannot be a style id: {_RESERVED[style_id]}")
    return style_id


def parse(selection: str) -> list[Term]:
    """The terms of a comma list, in order.

    Raises:
        SelectorError: nothing is selected, or parts are malformed.
    """
    terms: list[Term] = []
    wrong: list[str] = []
    for part in selection.split(","):
        try:
            terms.append(_term(part.strip()))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise SelectorError(f"cannot read the selection {selection!r}: {'; '.join(wrong)}")
    return terms


def _term(text: str) -> Term:
    if not text:
        raise ValueError("a part is empty; give id, id@version, id@alias, tag:name or all")
    if text == "all":
        return Every()
    if text.startswith("tag:"):
        tag = text.removeprefix("tag:")
        if not re.fullmatch(STYLE_ID, tag):
            raise ValueError(f"{text!r}: a tag is of small letters, digits and '-'")
        return Tagged(tag)
    style_id, found, at = text.partition("@")
    check_style_id(style_id)
    if not found:
        return Style(style_id)
    if re.fullmatch(r"[1-9][0-9]{0,17}", at):
        return Style(style_id, version=int(at))
    if not re.fullmatch(ALIAS, at):
        raise ValueError(f"{text!r}: after '@' stands a version, 1 or above, or an alias")
    return Style(style_id, alias=at)
