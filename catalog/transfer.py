"""Moving styles between catalogs: a bundle is a folder, or one .tar of it, with all that a style needs.

``bundle.json`` (:class:`Bundle`) is written last; beside it stands a folder for each version with its safetensors
checkpoint and its pictures, all named by sha256 in ``bundle.json``. Names of files are this module's own: none is taken
from a catalog or a bundle.
"""

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.errors import CatalogUsageError, CheckpointMismatch
from catalog.register import register
from catalog.schema import NewStyle, Sha256, StyleVersion
from catalog.style_folder import FOLDER
from catalog.tables import Tables
from catalog.view import Question, View
from cluster.storage import NotFound, Storage

_BUNDLE = "bundle.json"
_STEMS = {"checkpoint_uri": "style", "reference_uri": "reference", "photo_uri": "photo", "preview_uri": "preview"}
_Column = Literal["checkpoint_uri", "reference_uri", "photo_uri", "preview_uri"]
_SUFFIX = r"^\.[a-z0-9]{1,11}$"


class BundledFile(BaseModel):
    """A file of a version: ``<style>/<version>/<what it is><suffix>``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: _Column
    suffix: str = Field(pattern=_SUFFIX)
    sha256: Sha256
    bytes: int = Field(ge=0)

    @property
    def name(self) -> str:
        return _STEMS[self.column] + self.suffix


class BundledStyle(BaseModel):
    """A version as it was; tags and notes as they were at its export."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: NewStyle
    version: int = Field(ge=1)
    files: tuple[BundledFile, ...]

    @property
    def folder(self) -> str:
        return f"{self.style.style_id}/{self.version}"


class Bundle(BaseModel):
    """What ``bundle.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    exported_from: str
    styles: tuple[BundledStyle, ...]


def pull(version: StyleVersion, folder: Path) -> Path:
    """Downloads a version's checkpoint and pictures into ``folder``/``id@version``, checked; returns that folder.

    ``style.json`` in it is the version's row.

    Raises:
        CheckpointMismatch: the checkpoint is not the one registered; it was not copied.
        StorageError: it cannot be read, or the folder not be written.
    """
    target = Storage.open(folder).child(str(version))
    _copy_files(version, target)
    target.write_bytes("style.json", (version.model_dump_json(indent=2) + "\n").encode())
    return Path(target.path)


def export(tables: Tables, versions: Sequence[StyleVersion], out: str) -> Bundle:
    """Writes a bundle to ``out``: a folder or s3:// prefix without one yet, or a file that ends in .tar.

    Raises:
        CatalogUsageError: a bundle is there already.
        CheckpointMismatch: a checkpoint is not the one registered.
        StorageError: something cannot be read or written.
    """
    target = Storage.open(out)
    if target.exists() or target.exists(_BUNDLE):
        raise CatalogUsageError(f"{out}: something is there already; give another name")
    if not out.endswith(".tar"):
        return _export_to(tables, versions, target)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _export_to(tables, versions, Storage.open(folder))
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            with tarfile.open(packed.name, "w") as archive:
                archive.add(folder, arcname="")
            target.upload_file(packed.name)
    return bundle


def import_bundle(tables: Tables, source: str, *, any_base: bool = False) -> list[StyleVersion]:
    """Registers the styles of a bundle as the next versions here; those that are here already are found.

    Raises:
        CatalogUsageError: no bundle, a damaged one, or its base is none of this catalog's and ``any_base`` is not set;
            nothing was registered.
        StorageError: something cannot be read or written; what was registered until then stays.
    """
    with _opened(Storage.open(source)) as (folder, bundle):
        _check_base(tables, bundle, any_base)
        for style in bundle.styles:
            _check_files(folder, style)
        return [_import_style(tables, folder, style) for style in bundle.styles]


def _export_to(tables: Tables, versions: Sequence[StyleVersion], target: Storage) -> Bundle:
    styles = []
    for version in versions:
        style = NewStyle.model_validate(version.model_dump(include={*NewStyle.model_fields}))
        files = _copy_files(version, target.child(version.style_id, str(version.version)))
        styles.append(BundledStyle(style=style, version=version.version, files=files))
    bundle = Bundle(exported_from=tables.storage.uri, styles=tuple(styles))
    target.write_bytes(_BUNDLE, (bundle.model_dump_json(indent=2) + "\n").encode())
    return bundle


def _copy_files(version: StyleVersion, target: Storage) -> tuple[BundledFile, ...]:
    """Pictures that are not there any more are left out; a checkpoint must be there."""
    digests = {"checkpoint_uri": version.checkpoint_sha256}
    copied = (
        _copy(Storage.open(uri), column, target, digests.get(column))
        for column in _STEMS
        if (uri := getattr(version, column))
    )
    return tuple(file for file in copied if file)


def _copy(source: Storage, column: str, target: Storage, digest: str | None) -> BundledFile | None:
    """None where the source is not there; with ``digest`` it must be, and be the one meant."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "file"
        try:
            source.download_file("", local)
        except NotFound:
            if digest is None:
                return None
            raise CheckpointMismatch(f"{source}: there is no such checkpoint; nothing was copied") from None
        with local.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest not in (None, found):
            raise CheckpointMismatch(f"{source}: its sha256 is not {digest}; nothing was copied")
        suffix = PurePosixPath(source.uri).suffix
        file = BundledFile(
            column=column,  # type: ignore[arg-type]
            suffix=suffix if re.fullmatch(_SUFFIX, suffix) else ".bin",
            sha256=found,
            bytes=local.stat().st_size,
        )
        target.upload_file(local, file.name)
    return file


@contextmanager
def _opened(source: Storage) -> Iterator[tuple[Storage, Bundle]]:
    """The bundle and the folder it stands in, unpacked if it is one file."""
    with tempfile.TemporaryDirectory() as unpacked:
        folder = source
        if source.uri.endswith(".tar"):
            packed = Path(unpacked) / "packed"
            source.download_file("", packed)
            folder = Storage.open(Path(unpacked) / "content")
            try:
                with tarfile.open(packed) as archive:
                    archive.extractall(folder.path, filter="data")
            except tarfile.TarError as error:
                raise CatalogUsageError(f"{source}: not a bundle: {error}") from error
        try:
            bundle = Bundle.model_validate_json(folder.read_bytes(_BUNDLE))
        except NotFound:
            raise CatalogUsageError(f"{source}: not a bundle, or one cut short: it has no {_BUNDLE}") from None
        except ValidationError as error:
            raise CatalogUsageError(f"{source}: {_BUNDLE} is not valid: {error}") from None
        yield folder, bundle


def _check_base(tables: Tables, bundle: Bundle, any_base: bool) -> None:
    here = {tuple(row.values()) for row in View(tables).ask(Question(("base_name", "base_fingerprint"), sort=()))}
    fingerprints = {fingerprint for _, fingerprint in here}
    foreign = [s for s in bundle.styles if here and s.style.base_fingerprint not in fingerprints]
    if foreign and not any_base:
        style = foreign[0].style
        names = ", ".join(f"{name} ({fingerprint})" for name, fingerprint in sorted(here))
        raise CatalogUsageError(
            f"{style.style_id}@{foreign[0].version} was trained on base {style.base_name} ({style.base_fingerprint}), "
            f"the styles of {tables.storage} on {names}; import it anyway with --any-base"
        )


def _check_files(folder: Storage, style: BundledStyle) -> None:
    name = f"{style.style.style_id}@{style.version}"
    checkpoints = [file for file in style.files if file.column == "checkpoint_uri"]
    if [file.sha256 for file in checkpoints] != [style.style.checkpoint_sha256]:
        raise CatalogUsageError(f"{folder}: the bundle does not hold the checkpoint of {name}")
    for file in style.files:
        at = folder.child(style.folder)
        info = at.stat(file.name)
        if info is None or info.size != file.bytes or at.sha256(file.name) != file.sha256:
            raise CatalogUsageError(f"{at.child_uri(file.name)}: missing or damaged; nothing was imported")


def _import_style(tables: Tables, folder: Storage, bundled: BundledStyle) -> StyleVersion:
    style = bundled.style
    target = tables.storage.child(FOLDER, style.style_id, style.checkpoint_sha256[:12])
    uris = {}
    for file in bundled.files:
        copied = _copy(folder.child(bundled.folder, file.name), file.column, target, file.sha256)
        uris[file.column] = target.child_uri(copied.name) if copied else None
    gone = {column: None for column in ("photo_uri", "preview_uri") if column not in uris}
    return register(tables, style.model_copy(update=uris | gone))
