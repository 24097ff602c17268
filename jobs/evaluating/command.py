"""What an evaluation means, fully resolved and checked before anything starts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.manifest import Manifest
from catalog.schema import StyleVersion
from catalog.store import StyleCatalog, UnknownStyle
from catalog.style_folder import checkpoint_problems
from cluster.commandline.cli import ConcurrencyFlags, ConfigError, JobFlags, Problem, Uri, load_yaml
from cluster.commandline.problems import Problems
from cluster.storage import NotFound, Storage
from cluster.storage.cache import fetch
from jobs.evaluating.measuring import Reference
from jobs.evaluating.methods import COLOUR, FLOORS, OURS, PHOTOGRAPH, Aligned, Chosen, Group, Pairing, group_hash
from jobs.evaluating.methods import pictures_of_folder as listed
from jobs.evaluating.state import PairsTable
from jobs.streaming.command import StylesFlags, base_of_styles, other_base
from jobs.streaming.flags import OutputFlags, PoolFlags, output_beside, reached
from jobs.streaming.listing import Source, open_source
from jobs.streaming.ranking import DENSITY_SCHEMA
from osasis.base import BaseSpec, fingerprint
from osasis.errors import ImageRejected, OsasisError
from osasis.image import MAX_PIXELS, PIXELS_CEILING, FitMode
from osasis.metrics.networks import MetricsSpec, load_spec
from osasis.settings import StylizeConfig, TrainConfig

DENSITY_TABLE = "density"
"""Below an output of jobs/rank_density.py, beside its lists."""


class ContentFlags(JobFlags):
    """Which photographs are stylized."""

    content: Uri = Field(
        description="Folder or prefix of photographs, one photograph, a table or list of URIs; with --density, the "
        "output of jobs/rank_density.py."
    )
    content_column: str | None = Field(None, description="As --input-column of jobs/stylize.py.")
    density: Literal["low", "high", "random"] | None = Field(
        None, description="Of a ranking: its rarest or most usual photographs, or some drawn from all."
    )
    count: int = Field(100, gt=0, description="Photographs taken with --density.")
    limit: int | None = Field(None, gt=0, description="Only the first N photographs.")
    fit: FitMode = Field("crop", description="How photographs become squares, as in jobs/stylize.py.")
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=PIXELS_CEILING, description="Larger pictures are rejected unread.")


class ComparisonFlags(JobFlags):
    """What is compared, and by which networks."""

    methods: list[str] = Field(
        ["ours"],
        description="ours, and NAME=DIR for pictures of another method: DIR/STYLE/ or DIR/STYLE@VERSION/, or DIR "
        "itself where there is one style; files are matched by name. Colour transfer and photographs always join.",
    )
    vary: list[str] = Field([], description="Settings of ours to run through, such as lambda_spn=0,0.1,0.5,1.")
    networks: Uri | None = Field(None, description="Bundle of jobs/import_metrics.py; default: stand-ins of the base.")


class ReportFlags(JobFlags):
    """What becomes of the figures."""

    recipe: Uri | None = Field(
        None, description="YAML file with flags and the paper's figures, such as samples/paper/table-2.yaml."
    )
    leave_catalog: bool = Field(False, description="Write no figures into the catalog.")


class EvaluateFlags(  # type: ignore[misc]  # each has a model_config; the first counts
    ContentFlags, StylesFlags, PoolFlags, OutputFlags, ReportFlags, ConcurrencyFlags, ComparisonFlags, StylizeConfig
):
    """Measure styles on photographs as the paper does, beside other methods, and write a report.

    Running the same command again does only what is missing. Every table names the networks that measured.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--storage runs/seven --styles all --content samples/portraits --output runs/evaluation",
        "--storage s3://bucket/styles --styles tag:painting --content s3://bucket/density --density low --networks "
        "s3://bucket/metrics --methods ours,jojogan=s3://bucket/jojogan --output s3://bucket/table-1",
        "--storage runs/seven --styles all --content photos --vary lambda_spn=0,0.1,0.5,1 --output runs/table-2",
    )

    def config(self) -> StylizeConfig:
        """The method's part."""
        return StylizeConfig(**self.model_dump(include=set(StylizeConfig.model_fields)))


class Recipe(BaseModel):
    """A table or figure of the paper: flags, and the figures printed there."""

    model_config = ConfigDict(extra="forbid")

    title: str
    about: str = ""
    """What is compared with what, and where this differs from the paper."""
    flags: dict[str, Any] = {}
    """Of this job; those on the command line win."""
    paper: dict[str, dict[str, float]] = {}
    """By row: figures by metric."""


@dataclass(frozen=True)
class EvaluateJob:
    """An evaluation, resolved."""

    flags: EvaluateFlags
    recipe: Recipe | None
    storage: Storage
    output: Storage
    source: Source
    base_location: str
    base: BaseSpec
    styles: tuple[StyleVersion, ...]
    references: dict[str, Reference]
    variants: tuple[Pairing, ...]
    metrics: MetricsSpec

    @property
    def table(self) -> PairsTable:
        return PairsTable(self.output)


def with_recipe(flags: EvaluateFlags) -> tuple[EvaluateFlags, Recipe | None]:
    """The flags with those of the recipe, where it is given, below them.

    Raises:
        ConfigError: the recipe cannot be read, or has a flag that is none.
    """
    if flags.recipe is None:
        return flags, None
    recipe = load_yaml(flags.recipe, Recipe)
    given = flags.model_dump(include=flags.model_fields_set)
    try:
        return EvaluateFlags(**(recipe.flags | given)), recipe
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [Problem(f"{flags.recipe}: flags.{'.'.join(map(str, d['loc']))}", d["msg"]) for d in details]
        raise ConfigError(problems) from None


def resolve(flags: EvaluateFlags, recipe: Recipe | None = None) -> EvaluateJob:
    """Resolve ``flags``, reading but writing nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(OsasisError, UnknownStyle)
    attempt = problems.attempt
    storage = attempt("--storage", lambda: reached(flags.storage, writable=False))
    styles = attempt("--styles", lambda: StyleCatalog.open(storage).resolve(flags.styles)) if storage else None
    base = attempt("--base", lambda: base_of_styles(flags.base, styles or [])) if styles or flags.base else None
    source = attempt("--content", lambda: content(flags))
    output = attempt(
        "--output", lambda: output_beside(flags.output, flags.content, "--content", writable=not flags.dry_run)
    )
    metrics = attempt("--networks", lambda: networks_of(flags.networks))
    settings = attempt("--vary", lambda: varied(flags.config(), flags.vary))
    folders = attempt("--methods", lambda: other_methods(flags.methods, styles or []))
    references: dict[str, Reference] = {}
    if base and styles:
        problems.extend(other_base(base[1], styles))
        problems.extend(Problem("--styles", said) for said in checkpoint_problems(styles))
        for config in (settings or {}).values():
            attempt("--f-ch, --style-levels", partial(config.check_levels, len(base[1].unet.channel_mult)))
        for version in styles:
            reference = Reference(version.reference_uri, TrainConfig.model_validate(version.train_config).fit)
            if attempt(f"--styles {version}", partial(_readable, reference)):
                references[str(version)] = reference
    if problems or not (storage and styles and base and source and output and metrics and settings is not None):
        raise ConfigError(problems)
    common = [flags.fit, fingerprint(base[1]), flags.decoder, metrics.identity]
    variants = pairings(styles, settings if OURS in flags.methods else {}, folders or {}, common)
    if folders:
        names = {f"{v.method}, {v.style}": listed(Storage.open(v.folder)) for v in variants if v.folder}
        source = Aligned(source, names)
        if next(source.items(), None) is None:
            raise ConfigError(Problem("--methods", "no photograph has a picture in every folder", "names must agree"))
    return EvaluateJob(flags, recipe, storage, output, source, *base, tuple(styles), references, variants, metrics)


def content(flags: EvaluateFlags) -> Source:
    """The photographs.

    Raises:
        ConfigError: there are none.
    """
    if flags.density is None:
        return open_source(flags.content, flags.content_column)
    place = Storage.open(flags.content)
    if flags.density == "random":
        table = Manifest(place, DENSITY_TABLE, DENSITY_SCHEMA)
        uris = [uri for batch in table.batches(["input_uri"], "status = 'done'") for uri in batch[0].to_pylist()]
        uris.sort(key=lambda uri: hashlib.sha256(f"{flags.seed} {uri}".encode()).digest())
    else:
        try:
            uris = place.read_bytes(f"{flags.density}.txt").decode(errors="surrogateescape").splitlines()
        except NotFound:
            uris = []
    if not uris:
        raise ConfigError(Problem("--content", f"{place} is no output of jobs/rank_density.py with --density"))
    return Chosen(tuple(uris[: flags.count]))


def networks_of(uri: str | None) -> MetricsSpec:
    """What the bundle holds; nothing where none is given."""
    return load_spec(fetch(uri)) if uri else MetricsSpec()


def varied(config: StylizeConfig, vary: Sequence[str]) -> dict[str, StylizeConfig]:
    """Settings by their name: the one given, "", unless one is varied; each ``NAME=VALUE`` of the lists otherwise.

    Raises:
        ValueError: no setting of that name, or a value that it cannot have.
    """
    lists = _lists(vary)
    if not lists:
        return {"": config}
    settings = {}
    for name, values in lists.items():
        for value in values:
            settings[f"{name}={value}"] = StylizeConfig.model_validate(config.model_dump() | {name: _parsed(value)})
    return settings


def _lists(vary: Sequence[str]) -> dict[str, list[str]]:
    """``["a=1", "2", "b=3"]``, as a comma list is cut, → {a: [1, 2], b: [3]}."""
    lists: dict[str, list[str]] = {}
    for term in vary:
        name, equals, value = term.rpartition("=")
        name = name.strip().replace("-", "_")
        if equals:
            if name not in StylizeConfig.model_fields:
                raise ValueError(f"no setting {name!r}; there are {', '.join(StylizeConfig.model_fields)}")
            lists.setdefault(name, []).append(value)
        elif lists:
            lists[next(reversed(lists))].append(value)
        else:
            raise ValueError(f"{term!r} is not NAME=VALUE,VALUE,…")
    return lists


def _parsed(value: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    return words.get(value.lower(), value)


def other_methods(methods: Sequence[str], styles: Sequence[StyleVersion]) -> dict[str, dict[str, str]]:
    """Folders of other methods, by name and style.

    Raises:
        ValueError: a name that is none, or a folder without pictures of a style.
    """
    found: dict[str, dict[str, str]] = {}
    for term in methods:
        name, equals, uri = term.partition("=")
        if not equals:
            if name not in (OURS, *FLOORS):
                raise ValueError(f"{name!r} is no method: {', '.join((OURS, *FLOORS))}, or NAME=DIR")
        elif name in (OURS, *FLOORS) or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{name!r} cannot be the name of another method")
        else:
            found[name] = {str(style): _folder_of(Storage.open(uri), style, len(styles) == 1) for style in styles}
    return found


def _folder_of(folder: Storage, style: StyleVersion, only: bool) -> str:
    for name in (str(style), style.style_id, *([""] if only else [])):
        place = folder.child(name) if name else folder
        if listed(place):
            return place.uri
    raise ValueError(f"{folder} has no pictures of {style}: they belong in {style.style_id}/ below it")


def _readable(reference: Reference) -> bool:
    try:
        reference.read(8)
    except ImageRejected as rejected:
        raise ValueError(f"its reference {reference.uri} cannot be used: {rejected}") from None
    return True


def pairings(
    styles: Sequence[StyleVersion],
    settings: dict[str, StylizeConfig],
    folders: dict[str, dict[str, str]],
    common: Sequence[Any],
) -> tuple[Pairing, ...]:
    """Every method under every setting, style by style."""
    hashes = {name: group_hash(OURS, config, None, common) for name, config in settings.items()}
    found = []
    for version in styles:
        of = (version.style_id, version.version, version.checkpoint_uri, version.checkpoint_sha256)
        for name, config in settings.items():
            found.append(Pairing(*of, params_hash=hashes[name], method=OURS, setting=name, config=config))
        for method in (COLOUR, PHOTOGRAPH):
            found.append(Pairing(*of, params_hash=group_hash(method, None, None, common), method=method))
        for method, by_style in folders.items():
            # Of the method as a whole: a group's pictures are those of all its styles.
            hashed = group_hash(method, None, "\n".join(by_style.values()), common)
            found.append(Pairing(*of, params_hash=hashed, method=method, folder=by_style[str(version)]))
    return tuple(found)


def groups_of(variants: Sequence[Pairing]) -> list[Group]:
    """Once each, in order."""
    return list(dict.fromkeys(Group(v.method, v.setting, v.params_hash) for v in variants))
