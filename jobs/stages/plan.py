"""What a stylize command means, fully resolved and checked before anything starts."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field, ValidationError

from catalog.schema import StyleVersion
from catalog.store import StyleCatalog, UnknownStyle
from cluster.cli import ConfigError
from cluster.storage import Storage, StorageError
from jobs.stages.inputs import Source, open_source
from jobs.stages.stylizer import StyleRef
from osasis.base import BaseSpec, bundled_bases, fingerprint
from osasis.image import MAX_PIXELS, PIXELS_CEILING, FitMode
from osasis.settings import StylizeConfig

T = TypeVar("T")


class StylizeOptions(StylizeConfig):
    """Flags of ``jobs/stylize.py``; those of the method itself come from StylizeConfig."""

    storage: str = Field(description="Where the catalog is: path or s3:// URI.")
    input: str = Field(
        description="Folder or s3:// prefix of pictures, one file, or a .parquet or .csv file with a column of URIs."
    )
    styles: str = Field(description="Comma list of id, id@version, id@alias, tag:TAG, or all.")
    output: str = Field(description="Where pictures and the manifest go: path or s3:// URI.")
    base: str | None = Field(None, description="Base: bundled name, path or s3:// URI. Default: the styles' own.")
    input_column: str = Field("uri", description="Column of a table input that holds the URIs.")
    fit: FitMode = Field(
        "crop", description="crop: the largest centred square; pad: the whole picture, continued by reflection."
    )
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=PIXELS_CEILING, description="Larger pictures are rejected unread.")
    batch_size: int = Field(8, gt=0, description="Pictures a worker takes at once.")
    workers: int | None = Field(None, gt=0, description="Workers; default: as many as the cluster holds.")
    cpus_per_worker: float = Field(0.75, gt=0, description="CPUs of a worker; 0.25 more is set aside for decoding.")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs of a worker; a part of one is possible.")
    limit: int | None = Field(None, gt=0, description="Only the first so many inputs.")
    retry_failed: bool = Field(False, description="Take up again what failed before (rejected stays rejected).")
    dry_run: bool = Field(False, description="Print the resolved plan and touch nothing.")

    def config(self) -> StylizeConfig:
        """The method's part."""
        return StylizeConfig(**self.model_dump(include=set(StylizeConfig.model_fields)))


@dataclass(frozen=True)
class Plan:
    """Everything resolved: what is read, by which base and styles, and where it goes."""

    options: StylizeOptions
    storage: Storage
    source: Source
    output: Storage
    base_uri: str
    base_name: str
    image_size: int
    styles: tuple[StyleRef, ...]
    params_hash: str


def make_plan(options: StylizeOptions) -> Plan:
    """Resolve ``options``, reading but writing nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[str] = []

    def attempt(flag: str, resolve: Callable[[], T]) -> T | None:
        try:
            return resolve()
        except ConfigError as error:
            problems.extend(error.problems)
        except (StorageError, UnknownStyle, ValueError, OSError) as error:
            problems.append(f"{flag}: {error}")
        return None

    storage = attempt("--storage", lambda: Storage.open(options.storage))
    versions = storage and attempt("--styles", lambda: StyleCatalog.open(storage).resolve(options.styles))
    source = attempt("--input", lambda: open_source(options.input, options.input_column))
    output = attempt("--output", lambda: Storage.open(options.output))
    if output and _inside(options.output, options.input):
        problems.append(f"--output {options.output}: lies inside --input, its pictures would be taken for inputs")
    base = attempt("--base", lambda: _base(options.base, versions or []))
    if base and versions:
        problems.extend(_other_base(base[1], versions))
    if problems or not (storage and versions and source and output and base):
        raise ConfigError(problems)
    base_uri, spec = base
    return Plan(
        options=options,
        storage=storage,
        source=source,
        output=output,
        base_uri=base_uri,
        base_name=spec.name,
        image_size=spec.image_size,
        styles=tuple(StyleRef(v.style_id, v.version, v.checkpoint_uri, v.checkpoint_sha256) for v in versions),
        params_hash=params_hash(options.config(), options.fit, fingerprint(spec)),
    )


def params_hash(config: StylizeConfig, fit: FitMode, base_fingerprint: str) -> str:
    """Identity of the parameters that change pixels, the style aside. 16 hex digits."""
    values = {"config": config.model_dump(mode="json"), "fit": fit, "base": base_fingerprint}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _base(asked: str | None, versions: list[StyleVersion]) -> tuple[str, BaseSpec] | None:
    """URI and spec of the base: the one asked for, else the only one that the styles name."""
    names = sorted({version.base_name for version in versions})
    if asked is None and not names:
        return None  # the styles are already a problem
    if asked is None and len(names) > 1:
        raise ValueError(f"the styles need different bases ({', '.join(names)}): run once for each")
    name = asked or names[0]
    bundled = bundled_bases()
    if name not in bundled and asked is None:
        raise ValueError(f"the styles were trained on base {name}, which is not bundled: say where it is")
    uri = str(bundled.get(name, name))
    folder = Storage.open(uri)
    if not folder.exists("base.json"):
        raise ValueError(f"{name} is neither a bundled base ({', '.join(bundled)}) nor a place with a base.json")
    try:
        return uri, BaseSpec.model_validate_json(folder.read_bytes("base.json"))
    except ValidationError as error:
        raise ValueError(f"{uri}/base.json is not valid: {error}") from None


def _other_base(spec: BaseSpec, versions: list[StyleVersion]) -> list[str]:
    mine = fingerprint(spec)
    return [
        f"--styles {version.style_id}@{version.version}: was trained on base {version.base_name} "
        f"({version.base_fingerprint}), not on {spec.name} ({mine})"
        for version in versions
        if version.base_fingerprint != mine
    ]


def _inside(inner: str, outer: str) -> bool:
    return f"{Storage.open(inner)}/".startswith(f"{Storage.open(outer)}/")
