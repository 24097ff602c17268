"""What each input is made into: a style, or no style, each as it is or changed by a prompt."""

from dataclasses import dataclass
from typing import Any

from catalog.manifest import VariantKey
from catalog.output_names import variant_label


@dataclass(frozen=True)
class Variant:
    """A trained style and where its checkpoint lies, or no style; with or without a prompt.

    ``params_hash`` covers all that changes pixels, the style aside, and the prompt.
    """

    style_id: str
    version: int
    checkpoint_uri: str = ""
    checkpoint_sha256: str = ""
    reference_uri: str = ""
    text: str | None = None
    params_hash: str = ""

    @property
    def style(self) -> str:
        """``id@version``."""
        return f"{self.style_id}@{self.version}"

    @property
    def label(self) -> str:
        """``id@version`` or ``id@version~prompt``: the folder of its pictures, safe as a path."""
        return variant_label(self.style_id, self.version, self.text)

    @property
    def pair(self) -> VariantKey:
        return self.style_id, self.version, self.params_hash

    @property
    def columns(self) -> dict[str, Any]:
        """Its part of a manifest row."""
        return {name: getattr(self, name) for name in ("style_id", "version", "params_hash", "text")}
