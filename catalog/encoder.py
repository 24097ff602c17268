"""The CLIP of a base, for questions in words and pictures.

The catalog answers everything else without torch. This module loads the method's packages by name, and only when a
search is asked for.
"""

from importlib import import_module
from typing import Any, Protocol

from catalog.errors import CatalogUsageError
from cluster.storage import NotFound, Storage
from cluster.storage.cache import fetch


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
        self._base = import_module("osasis.base")
        self._image = import_module("osasis.image")
        errors = import_module("osasis.errors")
        folder = Storage.open(self._base.base_location(location))
        try:
            spec_file = fetch(folder.child_uri("base.json"))
            self._spec = self._base.load_spec(spec_file.parent)
            digest = self._spec.files.get("clip.safetensors")
            weights = fetch(folder.child_uri("clip.safetensors"), sha256=digest)
            self._clip = self._base.load_clip(self._spec, weights)
        except (NotFound, errors.OsasisError) as error:
            raise CatalogUsageError(f"no CLIP of a base at {location!r}: {error}") from error
        self.clip_encoder = str(self._base.clip_fingerprint(self._spec))
        self.base_fingerprint = str(self._base.fingerprint(self._spec))

    def encode_text(self, text: str) -> list[float]:
        """Raises CatalogUsageError where a small vocabulary knows none of the words."""
        words = import_module("osasis.networks.clip").words(text)
        vocabulary = self._spec.clip.vocab
        if not words or (vocabulary and not {*words} & {*vocabulary}):
            known = (
                f"the CLIP of base {self._spec.name} knows {len(vocabulary)} words" if vocabulary else "give some words"
            )
            raise CatalogUsageError(f"{text!r} holds no word to search by; {known}")
        return self._numbers(self._clip.encode_text([text]))

    def encode_image(self, data: bytes) -> list[float]:
        """As the styles' references were: the middle square. Raises CatalogUsageError where it is no picture."""
        errors = import_module("osasis.errors")
        try:
            picture = self._image.decode_image(data)
        except errors.OsasisError as error:
            raise CatalogUsageError(f"cannot search by that picture: {error}") from error
        square, _ = self._image.fit(picture, self._spec.image_size, "crop")
        return self._numbers(self._clip.encode_image(self._image.to_tensor(square)[None]))

    @staticmethod
    def _numbers(embeddings: Any) -> list[float]:
        return [float(number) for number in embeddings[0].tolist()]
