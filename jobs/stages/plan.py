"""What a stylize command means, fully resolved and checked before anything starts."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field

from catalog.schema import StyleVersion
from catalog.store import StyleCatalog, UnknownStyle
from cluster.cli import ConfigError, JobFlags, Problem
from cluster.storage import Storage, StorageError
from jobs.bases import describe_base
from jobs.stages.inputs import Source, open_source
from jobs.stages.manifest import Manifest
from jobs.stages.stylizer import StyleRef
from osasis.base import BaseSpec, bundled_bases, fingerprint
from osasis.errors import OsasisError
from osasis.image import MAX_PIXELS, PIXELS_CEILING, FitMode
from osasis.stylize_config import StylizeConfig

T = TypeVar("T")

_FIRST = {"t0_ratio", "encode_steps", "decode_steps", "lambda_spn", "style_levels", "seed"}
"""Parameters of stylization that were always part of :func:`params_hash`."""


class StylizeFlags(JobFlags, StylizeConfig):  # type: ignore[misc]  # both name their model_config; the first counts
    """Stylizes every picture of --input in every style of --styles, as pictures and a manifest under --output.

    Running the same command again does only what is missing. Exit codes: 0 all is done; 1 failed; 2 bad usage or
    configuration, nothing was started; 3 finished, but the manifest holds rejected or failed inputs among those of this
    command, be they decided now or by an earlier run.
    """

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

    flags: StylizeFlags
    storage: Storage
    source: Source
    output: Storage
    base_location: str
    base_name: str
    image_size: int
    styles: tuple[StyleRef, ...]
    params_hash: str


def make_plan(flags: StylizeFlags) -> Plan:
    """Resolve ``flags``, reading but writing nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[Problem] = []

    def attempt(flag: str, resolve: Callable[[], T]) -> T | None:
        try:
            return resolve()
        except ConfigError as error:
            problems.extend(error.problems)
        except (StorageError, UnknownStyle, OsasisError, ValueError, OSError) as error:
            problems.append(Problem(flag, str(error)))
        return None

    storage = attempt("--storage", lambda: _reached(flags.storage, writable=not flags.dry_run))
    versions = storage and attempt("--styles", lambda: StyleCatalog.open(storage).resolve(flags.styles))
    source = attempt("--input", lambda: open_source(flags.input, flags.input_column))
    output = attempt("--output", lambda: _output(flags))
    base = attempt("--base", lambda: _base(flags.base, versions or []))
    if base and versions:
        problems.extend(_other_base(base[1], versions))
        levels = len(base[1].unet.channel_mult)
        attempt("--f-ch, --style-levels", lambda: flags.config().check_levels(levels))
    hashed = base and params_hash(flags.config(), flags.fit, fingerprint(base[1]))
    if hashed and output and versions:
        problems.extend(attempt("--output", lambda: _occupied(output, versions, hashed)) or [])
    if problems or not (storage and versions and source and output and base and hashed):
        raise ConfigError(problems)
    base_location, spec = base
    return Plan(
        flags=flags,
        storage=storage,
        source=source,
        output=output,
        base_location=base_location,
        base_name=spec.name,
        image_size=spec.image_size,
        styles=tuple(StyleRef(v.style_id, v.version, v.checkpoint_uri, v.checkpoint_sha256) for v in versions),
        params_hash=hashed,
    )


def params_hash(config: StylizeConfig, fit: FitMode, base_fingerprint: str) -> str:
    """Identity of the parameters that change pixels, the style aside. 16 hex digits."""
    asked = config.model_dump(mode="json", exclude_defaults=True)
    # Parameters that came later count where they are set, so that outputs made before them stay the same outputs.
    values = {"config": config.model_dump(mode="json", include=_FIRST) | asked, "fit": fit, "base": base_fingerprint}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _base(asked: str | None, versions: Sequence[StyleVersion]) -> tuple[str, BaseSpec] | None:
    """Location and spec of the base: the one asked for, else the only one that the styles name."""
    names = sorted({version.base_name for version in versions})
    if asked is None and not names:
        return None  # the styles are already a problem
    if asked is None and len(names) > 1:
        raise ValueError(f"the styles need different bases ({', '.join(names)}): run once for each")
    if asked is None and names[0] not in bundled_bases():
        raise ValueError(f"the styles were trained on base {names[0]}, which is not bundled: say where it is")
    return describe_base(asked or names[0])


def _other_base(spec: BaseSpec, versions: Sequence[StyleVersion]) -> list[Problem]:
    mine = fingerprint(spec)
    return [
        Problem(
            f"--styles {version.style_id}@{version.version}",
            f"was trained on base {version.base_name} ({version.base_fingerprint}), not on {spec.name} ({mine})",
            "give that base by --base, or train the style again",
        )
        for version in versions
        if version.base_fingerprint != mine
    ]


def _reached(uri: str, *, writable: bool) -> Storage:
    storage = Storage.open(uri)
    if writable:
        storage.check_writable()
    else:
        next(storage.walk(recursive=False), None)
    return storage


def _output(flags: StylizeFlags) -> Storage:
    if f"{Storage.open(flags.output)}/".startswith(f"{Storage.open(flags.input)}/"):
        raise ValueError("lies inside --input: its pictures would be taken for inputs")
    return _reached(flags.output, writable=not flags.dry_run)


def _occupied(output: Storage, versions: Sequence[StyleVersion], hashed: str) -> list[Problem]:
    """Pictures of other parameters would be overwritten, and their rows be wrong."""
    taken = Manifest(output).other_parameters([(v.style_id, v.version) for v in versions], hashed)
    names = ", ".join(f"{style_id}@{version}" for style_id, version in taken)
    hint = "give another --output, or the parameters of that run"
    return [Problem("--output", f"holds pictures of {names} made with other parameters", hint)] if taken else []
