"""The CLIP of a base, for questions in words and pictures.

The catalog answers everything else without torch. This is its one way to the method, taken only when a search is asked
for: the contract in pyproject.toml names these imports, and no others are allowed.
"""

from typing import TYPE_CHECKING, Protocol

from catalog.errors import CatalogUsageError
from cluster.storage import NotFound, Storage
from cluster.storage.cache import fetch

if TYPE_CHECKING:
    from torch import Tensor


class Encoder(Protocol):
    """Makes embeddings of unit length that compare with those of styles registered by the same ``clip_encoder``."""

    clip_encoder: str
    base_fingerprint: str

    def encode_text(self, text: str) -> list[float]: ...
    def encode_image(self, data: bytes) -> list[float]: ...


class BaseClip:
    """The CLIP of one base bundle, on the CPU."""

    def __init__(self, location: str) -> None:
        """``location``: a bundled name, a folder or an s3:// URI.

        Raises:
            CatalogUsageError: no base there, or one without a CLIP.
            StorageError: it cannot be read.
        """
        from osasis.base import base_location, clip_fingerprint, fingerprint, load_clip, load_spec
        from osasis.errors import OsasisError

        folder = Storage.open(base_location(location))
        try:
            spec_file = fetch(folder.child_uri("base.json"))
            self._spec = load_spec(spec_file.parent)
            digest = self._spec.files.get("clip.safetensors")
            self._clip = load_clip(self._spec, fetch(folder.child_uri("clip.safetensors"), sha256=digest))
        except (NotFound, OsasisError) as error:
            raise CatalogUsageError(f"no CLIP of a base at {location!r}: {error}") from error
        self.clip_encoder = str(clip_fingerprint(self._spec))
        self.base_fingerprint = fingerprint(self._spec)

    def encode_text(self, text: str) -> list[float]:
        """Raises CatalogUsageError where a small vocabulary knows none of the words."""
        from osasis.networks.clip import words

        vocabulary = self._spec.clip.vocab if self._spec.clip else None
        if not words(text) or (vocabulary and not {*words(text)} & {*vocabulary}):
            known = (
                f"the CLIP of base {self._spec.name} knows {len(vocabulary)} words" if vocabulary else "give some words"
            )
            raise CatalogUsageError(f"{text!r} holds no word to search by; {known}")
        return self._numbers(self._clip.encode_text([text]))

    def encode_image(self, data: bytes) -> list[float]:
        """As the styles' references were: the middle square. Raises CatalogUsageError where it is no picture."""
        from osasis.errors import OsasisError
        from osasis.image import decode_image, fit, to_tensor

        try:
            picture = decode_image(data)
        except OsasisError as error:
            raise CatalogUsageError(f"cannot search by that picture: {error}") from error
        square, _ = fit(picture, self._spec.image_size, "crop")
        return self._numbers(self._clip.encode_image(to_tensor(square)[None]))

    @staticmethod
    def _numbers(embeddings: "Tensor") -> list[float]:
        return [float(number) for number in embeddings[0].tolist()]
