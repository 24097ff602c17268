"""Styles nearest to words or a picture, by the CLIP embeddings of their references."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catalog.encoder import BaseClip, Encoder
from catalog.errors import CatalogUsageError
from catalog.filters import Condition
from catalog.view import Question, View


@dataclass(frozen=True)
class Nearest:
    """Rows with their ``similarity``, the cosine in [-1, 1], largest first; and which CLIP made the embeddings."""

    clip_encoder: str
    base_name: str
    rows: list[dict[str, Any]]


def search(
    view: View,
    question: Question,
    *,
    text: str | None = None,
    picture: bytes | None = None,
    clip_from: str | None = None,
    load: Callable[[str], Encoder] = BaseClip,
) -> Nearest:
    """The versions that ``question`` chooses, nearest first; its sort is not used.

    Args:
        clip_from: the base whose CLIP encodes the query: bundled name, folder or s3:// URI; by default the styles'.

    Raises:
        CatalogUsageError: neither or both of text and picture, nothing to compare with, or embeddings of several CLIPs
            or of another than the query's.
    """
    if (text is None) == (picture is None):
        raise CatalogUsageError("give words or a picture to search by, one of them")
    made_by = _encoders(view, question)
    if not made_by:
        raise CatalogUsageError("no such style has an embedding to search by")
    if len({key for key, _ in made_by}) > 1:
        several = ", ".join(sorted(f"{key} (base {name})" for key, name in made_by))
        raise CatalogUsageError(f"the styles' embeddings were made by several CLIPs: {several}; choose by --base")
    key, base_name = min(made_by)
    encoder = load(clip_from or base_name)
    if key not in (encoder.clip_encoder, f"base:{encoder.base_fingerprint}"):
        raise CatalogUsageError(
            f"the styles' embeddings were made by CLIP {key} of base {base_name}, and {clip_from or base_name} has "
            f"{encoder.clip_encoder}; say by --clip-from where that base is"
        )
    near = encoder.encode_image(picture) if picture is not None else encoder.encode_text(text or "")
    return Nearest(encoder.clip_encoder, base_name, [*view.ask(replace(question, near=near))])


def _encoders(view: View, question: Question) -> set[tuple[str, str]]:
    """(which CLIP, base's name) of all versions in question. Rows older than ``clip_encoder`` go by their base."""
    asked = replace(question, columns=("clip_encoder", "base_name", "base_fingerprint"), sort=(), limit=None, offset=0)
    found = {tuple(row.values()) for row in view.ask(asked)}
    known = {(encoder, name) for encoder, name, _ in found if encoder}
    for _, name, fingerprint in {row for row in found if row[0] is None}:
        where: Sequence[Condition] = (*question.where, Condition("base_fingerprint", "=", fingerprint))
        rows = view.ask(replace(asked, columns=("clip_encoder", "clip_embedding"), where=where))
        if any(row["clip_encoder"] is None and row["clip_embedding"] for row in rows):
            known.add((f"base:{fingerprint}", name))
    return known
