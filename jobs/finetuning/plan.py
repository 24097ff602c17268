"""What a training command means, resolved and checked before anything starts."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from catalog.store import StyleCatalog
from catalog.style_folder import StyleFolder, checkpoint_problem
from cluster.commandline.cli import ConfigError, Problem
from cluster.commandline.config_file import ConfigFile
from cluster.commandline.help import flag_name
from cluster.commandline.problems import Problems
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.finetuning.styles_file import Declared, StyleEntry, StylesFile, TrainStylesFlags, declared_styles
from jobs.finetuning.warm_start import file_key, is_file
from jobs.shared.bases import describe_base
from osasis.base import BaseSpec, fingerprint
from osasis.errors import OsasisError
from osasis.image import DECODER, decode_image
from osasis.settings import ContentConfig, Preset, TrainConfig
from osasis.style_training import missing_parts

State = Literal["train", "register", "done"]

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class StylePlan:
    """One style's training, identified by what it is made from."""

    style_id: str
    image_uri: str
    image_sha256: str
    photo_uri: str | None
    content: tuple[str, ...]
    """URIs of the photographs of ``config.content.photos``, in the order that training numbers them."""
    tags: tuple[str, ...]
    notes: str
    license: str
    preset: Preset
    config: TrainConfig
    train_key: str
    folder: StyleFolder
    """Where the finished files go."""
    state: State
    note: str = ""
    """Why a training that had ended begins again."""

    @property
    def run_name(self) -> str:
        return f"{self.style_id}-{self.train_key}"


@dataclass(frozen=True)
class TrainPlan:
    storage: Storage
    base_location: str
    base: BaseSpec
    styles: list[StylePlan]


T = TypeVar("T")


def plan_command(flags: TrainStylesFlags) -> TrainPlan:
    """Resolve a command; reads, and writes nothing but a probe of the storage.

    Raises:
        ConfigError: with every problem found; a wrong value does not hide that a picture is missing.
    """
    declared = declared_styles(flags)
    try:
        styles = declared.check()
    except ConfigError as error:
        raise ConfigError([*error.problems, *_unreachable(declared)]) from None
    plan = make_plan(styles, declared.file)
    if few := [style for style in plan.styles if style.config.batch_size < flags.processes_per_style]:
        raise ConfigError(
            Problem(
                "--processes-per-style",
                f"{flags.processes_per_style} processes cannot share batches of {few[0].config.batch_size}, as "
                f"{few[0].style_id} has",
                "give at most as many as train.batch_size",
            )
        )
    return plan


def _unreachable(declared: Declared) -> list[Problem]:
    """Places that a declaration with wrong values names in vain."""
    problems = Problems(OsasisError)
    data = {**declared.data, **declared.from_flags}
    if isinstance(base := data.get("base"), str):
        problems.attempt(declared.place("base"), lambda: describe_base(base))
    styles = data.get("styles")
    for i, style in enumerate(styles if isinstance(styles, list) else []):
        if isinstance(style, dict) and isinstance(image := style.get("image"), str) and image:
            problems.attempt(declared.place("styles", i, "image"), partial(_read_image, image))
    return problems


def make_plan(styles: StylesFile, file: ConfigFile | None) -> TrainPlan:
    """Resolve a styles file; reads, and writes nothing but a probe of the storage.

    Raises:
        ConfigError: with every problem found: missing images, unreachable storage, no such base, impossible settings.
    """
    problems = Problems(OsasisError, LookupError)

    def attempt(keys: list[str | int], resolve: Callable[[], T]) -> T | None:
        return problems.attempt(partial(_place, file, *keys), resolve)

    def storage_of() -> Storage:
        storage = Storage.open(styles.storage)
        storage.check_writable()
        return storage

    storage = attempt(["storage"], storage_of)
    base = attempt(["base"], lambda: describe_base(styles.base))
    catalog = storage and attempt(["storage"], lambda: StyleCatalog.open(storage))
    plans = []
    for i, style in enumerate(styles.styles):
        image = attempt(["styles", i, "image"], partial(_read_image, style.image))
        if base is None:
            continue
        config = attempt(["styles", i, "train"], partial(styles.config_of, style, base[1].train_defaults))
        photo = config and config.style_photo.image
        if photo:
            attempt(["styles", i, "train", "style_photo", "image"], partial(_read_image, photo))
        content: dict[str, str] | None = {}
        if config and config.content.photos:
            content = attempt(["styles", i, "train", "content", "photos"], partial(read_photos, config.content))
        start: list[str] | None = []
        if catalog and config and config.start_from not in ("none", "nearest"):
            start = attempt(["styles", i, "train", "start_from"], partial(_start_keys, config, base[1], catalog))
        if config:
            problems += [Problem(_place(file, "base"), f"lacks {part}") for part in missing_parts(base[1], config)]
        if storage and catalog and image and config and content is not None and start is not None:
            keys = [*content.values(), *start]
            plans.append(_style_plan(style, styles.preset, image, content, keys, config, base[1], storage, catalog))
    if problems or storage is None or base is None:
        raise ConfigError(problems)
    return TrainPlan(storage, base[0], base[1], plans)


def _style_plan(
    style: StyleEntry,
    preset: Preset,
    image: bytes,
    content: Iterable[str],
    keys: Sequence[str],
    config: TrainConfig,
    base: BaseSpec,
    storage: Storage,
    catalog: StyleCatalog,
) -> StylePlan:
    image_sha256 = hashlib.sha256(image).hexdigest()
    identity = [fingerprint(base), picture_key(image), preset, config.model_dump(mode="json"), *keys]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = StyleFolder.of(storage, style.id, key)
    state, note = _state(catalog, style.id, folder)
    return StylePlan(
        style_id=style.id,
        image_uri=Storage.open(style.image).uri,
        image_sha256=image_sha256,
        photo_uri=config.style_photo.image,
        content=tuple(content),
        tags=tuple(style.tags),
        notes=style.notes,
        license=style.license,
        preset=preset,
        config=config,
        train_key=key,
        folder=folder,
        state=state,
        note=note,
    )


def _start_keys(config: TrainConfig, base: BaseSpec, catalog: StyleCatalog) -> list[str]:
    """Identity of a file that training begins from; of styles, whose names are in the settings, that they exist."""
    if is_file(config.start_from):
        return [file_key(fetch(config.start_from), base, config)]
    catalog.resolve(config.start_from)
    return []


def _state(catalog: StyleCatalog, style_id: str, folder: StyleFolder) -> tuple[State, str]:
    known = catalog.find(style_id, folder.checkpoint_uri)
    if known and not (problem := checkpoint_problem(known)):
        return "done", ""
    if known:
        return "train", f"{problem}; it is trained again"
    result, problem = folder.finished()
    return ("register", "") if result else ("train", problem and f"{problem}; it is trained again")


def read_photos(content: ContentConfig) -> dict[str, str]:
    """URI → :func:`picture_key` of the first ``count`` pictures below ``content.photos``, by name; each can be decoded.

    Raises:
        ValueError: there are none, or one is not a picture.
    """
    folder = Storage.open(content.photos or "")
    names = [name for name in folder.list_files() if name.lower().endswith(_PICTURES)][: content.count]
    if not names:
        raise ValueError(f"{folder} holds no pictures ({', '.join(_PICTURES)})")
    found = {}
    for name in names:
        data = folder.read_bytes(name)
        try:
            found[folder.child_uri(name)] = picture_key(data)
        except OsasisError as error:
            raise ValueError(f"{folder.child_uri(name)}: {error}") from None
    return found


def picture_key(data: bytes) -> str:
    """Identity of a picture's pixels: its file's sha256, and where former versions decoded it otherwise, the decoder's
    version.

    Raises:
        ImageRejected: it cannot be decoded.
    """
    digest = hashlib.sha256(data).hexdigest()
    return f"{digest}-{DECODER}" if decode_image(data).info["converted"] else digest


def _read_image(uri: str) -> bytes:
    data = Storage.open(uri).read_bytes()
    decode_image(data)
    return data


def _place(file: ConfigFile | None, *keys: str | int) -> str:
    return file.place(*keys) if file else flag_name(*(keys[2:] if keys[:1] == ("styles",) else keys))
