"""One process, no Ray: pictures in, pictures out, in a notebook or a service."""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

import torch
from PIL import Image
from torch import Tensor

from osasis.base import Base, base_location, bundled_bases, load_base
from osasis.checkpoint import Style, dump_style, load_style, style_on
from osasis.errors import BaseError, CheckpointError
from osasis.full_size import Size, full_size, scaled, texture_of
from osasis.image import FitMode, FitTransform, fit, to_image, to_tensor, unfit, upright_rgb
from osasis.method import Progress, effective, pictures_of
from osasis.networks.spn import MixedSPN
from osasis.settings import PictureConfig, Preset, StylizeConfig, TextConfig, train_config
from osasis.strength import NO_STYLE, at_strength, no_style
from osasis.style_training import StyleTraining
from osasis.upsampling import Detail

Framing = Literal["square", "original"]


class StylePipeline:
    """A base and a style, or the base alone, ready for pictures.

    ``pipeline(image)`` is the image in the style; see :meth:`__call__`.
    """

    def __init__(self, base: Base, style: Style | None = None) -> None:
        self.base = base
        self.style = style or no_style(base)
        self._at_strength = self.style

    @classmethod
    def from_files(cls, base: str | Path, checkpoint: str | Path | None = None, *, device: str = "cpu") -> Self:
        """From a bundled base's name or a folder, and a style's file (none: the base alone).

        Raises:
            BaseError, CheckpointError: they cannot be read, or do not belong together.
        """
        loaded = load_base(Path(base_location(base)), device)
        return cls(loaded, load_style(Path(checkpoint), loaded) if checkpoint else None)

    @classmethod
    def from_catalog(cls, uri: str | Path, style: str, *, base: str | Path | None = None, device: str = "cpu") -> Self:
        """From a catalog's storage, a path or ``s3://`` URI, by ``id``, ``id@version`` or ``id@alias``.

        Args:
            base: where the style's base is, if it is not bundled: folder or ``s3://`` URI.

        Raises:
            ImportError: the catalog's packages are not installed.
            LookupError: there is no such style.
            BaseError, CheckpointError: what the catalog names is damaged or does not belong together.
        """
        storage, store, cache = (
            _installed(name) for name in ("cluster.storage", "catalog.store", "cluster.storage.cache")
        )
        version = store.StyleCatalog.open(storage.Storage.open(uri)).show(style)
        checkpoint = cache.fetch(version.checkpoint_uri)
        if hashlib.sha256(checkpoint.read_bytes()).hexdigest() != version.checkpoint_sha256:
            raise CheckpointError(f"{version.checkpoint_uri} is not what the catalog says: its sha256 is another")
        named = str(base or version.base_name)
        if base is None and named not in bundled_bases():
            raise BaseError(f"{version} needs base {named}, which is not bundled: pass its location as base=")
        return cls.from_files(cache.fetch(base_location(named)), checkpoint, device=device)

    def to(self, device: str | torch.device) -> Self:
        """Move everything to a device; returns itself."""
        self.base = self.base.on(str(device))
        alone = self.style.style_id == NO_STYLE
        self.style = self._at_strength = no_style(self.base) if alone else style_on(self.style, self.base.device)
        return self

    def save(self, path: str | Path) -> None:
        """Write the style's file, for :meth:`from_files`.

        Raises:
            ValueError: there is no style, or it is a mixture.
        """
        style = self.style
        if style.style_id == NO_STYLE:
            raise ValueError("the base alone has no style to save")
        if isinstance(style.spn, MixedSPN):
            raise ValueError("a mixture has no file: save its styles, and mix them again")
        data = dump_style(style.header, style.unet, style.spn, style.z_style, deltas=style.deltas)
        Path(path).write_bytes(data)

    @overload
    def __call__(self, images: Image.Image, *, text: str | None = None, **options: Any) -> Image.Image: ...
    @overload
    def __call__(
        self, images: Sequence[Image.Image], *, text: str | None = None, **options: Any
    ) -> list[Image.Image]: ...
    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image],
        *,
        text: str | None = None,
        fit: FitMode = "crop",
        framing: Framing = "square",
        size: Size = "base",
        detail: Detail | None = None,
        batch_size: int = 8,
        seed: int = 0,
        generator: torch.Generator | None = None,
        callback: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """The picture, or the list of pictures, in the style; of any size and mode, turned upright.

        Args:
            text: a prompt that the pictures are changed by first, such as "smiling".
            fit: how a square is cut: "crop" or "pad".
            framing: "square": the base's size; "original": scaled back to the region it was cut from, with "pad" the
                whole picture in its own size.
            size, detail: "original": the whole picture in its own size, the square laid back on it; a number: the same
                with a longer side of at most so many pixels. For both see PictureConfig.
            seed, generator: of what is drawn. DDIM draws nothing, so that equal pictures give equal results.
            callback: called with progress.
            settings: any field of StylizeConfig or TextConfig, such as ``lambda_spn=0.1`` or ``text_strength=2``.

        Raises:
            TypeError: no PIL images, or unknown settings.
            ValueError: a setting that cannot be, or a prompt that the base's CLIP cannot follow.
            ImageRejected: a picture that cannot be used.
        """
        listed = [images] if isinstance(images, Image.Image) else list(images)
        if not all(isinstance(image, Image.Image) for image in listed):
            raise TypeError("give a PIL image or a list of them")
        output = PictureConfig(size=size) if detail is None else PictureConfig(size=size, detail=detail)
        if size != "base" and framing == "original":
            raise ValueError("framing and size say the same thing: give one of them")
        config, text_config = _configs(settings, generator.initial_seed() if generator else seed)
        if not listed:
            return []
        squares, transforms = _squares(listed, self.base.image_size, fit)
        results: list[Image.Image] = []
        for batch in squares.split(batch_size):
            pictures = self._pictures(batch.to(self.base.device), text, config, text_config, callback).cpu()
            for square, picture in zip(batch, pictures, strict=True):
                image, cut = listed[len(results)], transforms[len(results)]
                if size != "base":
                    photo = scaled(upright_rgb(image), size)
                    texture, strength = self.style.header.texture, config.style_strength
                    result = full_size(photo, square, picture, cut, output.detail, texture, strength)
                else:
                    result = to_image(picture)
                results.append(unfit(result, cut) if framing == "original" else result)
        return results[0] if isinstance(images, Image.Image) else results

    def _pictures(
        self,
        images: Tensor,
        text: str | None,
        config: StylizeConfig,
        text_config: TextConfig,
        callback: Progress | None,
    ) -> Tensor:
        """[B, 3, S, S] in [-1, 1] → the same in the style."""
        style = self._style(effective(self.style, config, text, text_config).weight_strength)
        return pictures_of(self.base, style, images, config, text=text, text_config=text_config, progress=callback)

    def _style(self, strength: float) -> Style:
        """The style with its weights at ``strength``; the last one is kept."""
        if self._at_strength.strength != strength:
            self._at_strength = at_strength(self.style, self.base, strength)
        return self._at_strength


def train_style(
    image: Image.Image,
    base: str | Path | Base = "mini64",
    *,
    style_id: str = "my-style",
    preset: Preset = "official",
    photo: Image.Image | None = None,
    device: str = "cpu",
    callback: Callable[[int, int, dict[str, float]], None] | None = None,
    **train: Any,
) -> StylePipeline:
    """Learn one picture's style; the pipeline of it, whose :meth:`StylePipeline.save` keeps the style.

    Args:
        base: bundled name, folder, or a loaded base.
        photo: a photographic counterpart of the picture; None: found by the base's photo prior.
        callback: called with (iterations done, iterations in all, losses).
        train: any field of TrainConfig, such as ``iterations=100``.

    Raises:
        BaseError: the base cannot be read or lacks a part.
        ValueError: a setting that cannot be.
    """
    loaded = base if isinstance(base, Base) else load_base(Path(base_location(base)), device)
    config = train_config(preset, loaded.spec.train_defaults, train)
    if config.start_from != "none":
        raise ValueError("start_from names styles of a catalog, which jobs/train_styles.py has")
    square, _ = _squares([image], loaded.image_size, config.fit)
    counterpart = None if photo is None else _squares([photo], loaded.image_size, config.fit)[0]
    texture = texture_of(upright_rgb(image), loaded.image_size, config.fit)
    training = StyleTraining(loaded, square, config, photo=counterpart, texture=texture)
    for losses in training.run():
        if callback:
            callback(training.iterations_done, config.iterations, losses)
    return StylePipeline(loaded, training.style(style_id, preset))


def _squares(images: Sequence[Image.Image], size: int, mode: FitMode) -> tuple[Tensor, list[FitTransform]]:
    """[B, 3, S, S] in [-1, 1], and how each square was cut."""
    fitted = [fit(upright_rgb(image), size, mode) for image in images]
    return torch.stack([to_tensor(square) for square, _ in fitted]), [cut for _, cut in fitted]


def _configs(settings: dict[str, Any], seed: int) -> tuple[StylizeConfig, TextConfig]:
    ours = {name: value for name, value in settings.items() if name in StylizeConfig.model_fields}
    texts = {name: value for name, value in settings.items() if name in TextConfig.model_fields}
    if unknown := settings.keys() - ours.keys() - texts.keys():
        known = sorted({*StylizeConfig.model_fields, *TextConfig.model_fields})
        raise TypeError(f"unknown settings {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return StylizeConfig(**ours, seed=seed), TextConfig(**texts)


def _installed(module: str) -> Any:
    """A module of the project's other packages, needed only for catalogs."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{module} cannot be imported ({error}): a catalog needs the whole of osasis-on-ray installed; "
            "StylePipeline.from_files does without"
        ) from error
