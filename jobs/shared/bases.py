"""Finding a base bundle by bundled name, folder or s3:// URI, and loading it on whichever node needs it."""

from pathlib import Path

from pydantic import ValidationError

from cluster.storage import Storage
from cluster.storage.cache import fetch
from osasis.base import Base, BaseSpec, base_location, bundled_bases, load_base
from osasis.errors import BaseError
from osasis.precision import Precision

DEFAULT_BASE = "mini64"


def locate_base(name: str) -> str:
    """A bundled name as it is (every node has it in the package), anything else as a full URI."""
    return name if name in bundled_bases() else Storage.open(name).uri


def base_folder(location: str, cache_dir: Path | None = None) -> Path:
    """The bundle in a local folder, fetched once per node where it is remote."""
    place = base_location(location)
    remote = not Storage.open(place).is_local
    return fetch(place, cache_dir, sha256=describe_base(location)[1].files if remote else None)


def describe_base(name: str) -> tuple[str, BaseSpec]:
    """(location, spec) of a base; reads ``base.json`` alone.

    Raises:
        BaseError: no such bundle.
        StorageError: its storage cannot be reached.
    """
    location = locate_base(name)
    storage = Storage.open(base_location(location))
    if not storage.exists("base.json"):
        known = ", ".join(bundled_bases()) or "none"
        raise BaseError(f"no base {name!r}: not a bundled name ({known}), and {storage.uri} has no base.json")
    try:
        return location, BaseSpec.model_validate_json(storage.read_bytes("base.json"))
    except ValidationError as error:
        raise BaseError(f"{storage.child_uri('base.json')} is not valid: {error}") from None


def open_base(location: str, device: str, cache_dir: Path | None = None, precision: Precision = "float32") -> Base:
    """Load a base on this node."""
    return load_base(base_folder(location, cache_dir), device, precision=precision)
