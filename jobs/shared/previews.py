"""Previews of a style on the catalog's probe set, at registration and later; photographs are encoded once per node."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from catalog.probes import PROBE_SET, probe_photos
from cluster.storage.cache import default_cache_dir, owned
from cluster.storage.local import write_whole
from osasis.base import Base
from osasis.checkpoint import Style
from osasis.content import Content
from osasis.full_size import Size, Texture, full_size, scaled
from osasis.image import encode_png, fit, to_image, to_tensor
from osasis.metrics import gradient_correlation, style_distance
from osasis.settings import StylizeConfig
from osasis.stylize import Encoding, encode, encoding_for, stylize


@dataclass(frozen=True)
class Preview:
    """The probe set as photographs and in a style, both [P, 3, S, S] in [-1, 1]; ``texture``: the style's."""

    photos: Tensor
    stylized: Tensor
    texture: Texture = ()

    def png(self, size: Size = "original") -> bytes:
        """Photographs above, stylizations below, one column a portrait."""
        if size == "base":
            pairs = [(to_image(photo), to_image(picture)) for photo, picture in self._squares()]
        else:
            pairs = []
            for portrait, (photo, picture) in zip(_portraits(), self._squares(), strict=True):
                whole, (_, transform) = scaled(portrait, size), fit(portrait, photo.shape[-1])
                pairs.append((whole, full_size(whole, photo, picture, transform, "residual", self.texture)))
        side = pairs[0][0].width
        sheet = Image.new("RGB", (side * len(pairs), side * 2))
        for column, pair in enumerate(pairs):
            for row, shown in enumerate(pair):
                sheet.paste(shown, (column * side, row * side))
        return encode_png(sheet)

    def _squares(self) -> list[tuple[Tensor, Tensor]]:
        return [*zip(self.photos.cpu(), self.stylized.cpu(), strict=True)]

    def metrics(self, reference: Tensor, base: Base) -> dict[str, float]:
        """Structure kept and distances of style to ``reference`` [1, 3, S, S]; means over the set."""
        return {
            "structure": gradient_correlation(self.photos, self.stylized).mean().item(),
            "style_distance": style_distance(self.stylized, reference, base).mean().item(),
            "photo_style_distance": style_distance(self.photos, reference, base).mean().item(),
        }


@torch.no_grad()
def make_preview(style: Style, base: Base, cache_dir: Path | None = None) -> Preview:
    """The probe set in ``style``, with the settings that ``jobs/stylize.py`` takes by itself."""
    settings = StylizeConfig()
    encoded = _encoded_probes(base, encoding_for(style, settings), cache_dir or default_cache_dir())
    return Preview(encoded.photos, stylize(style, encoded, settings), style.header.texture)


def _encoded_probes(base: Base, encoding: Encoding, cache_dir: Path) -> Content:
    """The probe set's codes: the same for all styles of a base, so one worker of a node computes them."""
    photos = _photos(base.image_size)
    identity = [base.fingerprint, *encoding, base.device.type, torch.__version__, PROBE_SET]
    path = owned(cache_dir / "probes") / f"{hashlib.sha256(repr(identity).encode()).hexdigest()}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        try:
            codes = load_file(path)
        except (FileNotFoundError, SafetensorError):
            content = encode(base, photos.to(base.device), encoding)
            codes = {"z_in": content.z_in.cpu().contiguous(), "x_t0": content.x_t0.cpu().contiguous()}
            data = save(codes)
            write_whole(path, lambda file: file.write(data))
    return Content(photos.to(base.device), codes["z_in"].to(base.device), codes["x_t0"].to(base.device))


def _photos(size: int) -> Tensor:
    """[P, 3, S, S] in [-1, 1]."""
    return torch.stack([to_tensor(fit(picture, size)[0]) for picture in _portraits()])


def _portraits() -> list[Image.Image]:
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in probe_photos().values()]
