"""What a stylize command means, fully resolved and checked before anything starts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from catalog.errors import CatalogUsageError
from catalog.filters import Condition
from catalog.manifest import FLAGGED, Manifest
from catalog.output_names import NO_STYLE
from catalog.schema import StyleVersion
from catalog.store import StyleCatalog, UnknownStyle
from catalog.style_folder import checkpoint_problems
from cluster.commandline.cli import ConfigError, JobFlags, OutputUri, Problem, Uri
from cluster.commandline.problems import Problems
from cluster.storage import Storage, StorageError
from jobs.shared.bases import DEFAULT_BASE, describe_base
from jobs.streaming.flags import StreamFlags, reached
from jobs.streaming.listing import Source, open_source
from jobs.streaming.packing import Pack, PackFormat
from jobs.streaming.rows import SCORES
from jobs.streaming.structure import KeepStructure
from jobs.streaming.variants import Variant
from osasis.base import BaseSpec, bundled_bases, fingerprint
from osasis.errors import OsasisError
from osasis.image import DECODER, FitMode
from osasis.settings import PictureConfig, StylizeConfig, TextConfig

_FIRST = {"t0_ratio", "encode_steps", "decode_steps", "lambda_spn", "style_levels", "seed"}
"""Parameters of stylization that were always part of :func:`params_hash`."""


class StylesFlags(JobFlags):
    """Which styles of the catalog, on which base."""

    storage: OutputUri = Field(description="Where the catalog is.")
    styles: str = Field(
        description="Styles by id, id@version, id@alias or tag:TAG; all; or none for the base alone.",
        json_schema_extra={"metavar": "LIST"},
    )
    base: Uri | None = Field(
        None, description="Base: bundled name or URI; default: the one the styles were trained on."
    )


class ScoreFlags(JobFlags):
    """What the manifest says of each picture beside its outcome."""

    scores: bool = Field(
        False,
        description="Score each picture by the base's own networks, in the manifest: structure (1: all of the "
        "photograph's edges) and style (1: as far from the reference as the photograph, 0: as the reference).",
    )
    flag: list[str] = Field(
        [],
        description="Mark rows of which this holds, such as structure<0.6; of structure, style, seconds, width or "
        "height.",
    )

    def conditions(self) -> list[Condition]:
        """What is marked.

        Raises:
            ValueError: one cannot be read, is of another column, or of scores that are not asked for.
        """
        found = []
        for text in self.flag:
            try:
                condition = Condition.parse(text)
            except CatalogUsageError as error:
                raise ValueError(str(error)) from None
            if condition.name not in FLAGGED:
                raise ValueError(f"{text!r}: rows are marked by {', '.join(FLAGGED)}")
            if condition.name in SCORES and not self.scores:
                raise ValueError(f"{text!r} needs --scores")
            found.append(condition)
        return found


class StructureFlags(JobFlags):
    keep_structure: OutputUri | None = Field(
        None,
        description="Keep the pictures' structural codes here, in float16, and take those that are kept: later runs "
        "with other styles skip encoding.",
    )


class LayoutFlags(JobFlags):
    """How many files pictures become, in which folders."""

    pack: PackFormat | None = Field(
        None,
        description="Write shards of pictures instead of a file each: WebDataset (.tar) or Parquet with the bytes in a "
        "column image.",
    )
    output_folders: Literal["input", "hashed"] = Field(
        "input",
        description="Folders of pictures. input: as those of the inputs; hashed: 65,536, for many millions of pictures "
        "in few folders.",
    )

    @model_validator(mode="after")
    def _packed_pictures_have_no_folders(self) -> Self:
        if self.pack and self.output_folders == "hashed":
            raise ValueError("output_folders is of pictures in files of their own: leave it out with --pack")
        return self


class TextFlags(TextConfig):
    text: list[str] = Field([], description="Prompts, such as smiling; each makes pictures of its own.")


class StylizeFlags(  # type: ignore[misc]  # each has a model_config; the first counts
    StylesFlags, StreamFlags, ScoreFlags, StructureFlags, LayoutFlags, PictureConfig, StylizeConfig, TextFlags
):
    """Stylize every picture of --input in every style of --styles, as pictures and a manifest under --output.

    Running the same command again does only what is missing. Exit code 3 counts what earlier runs rejected or failed,
    too.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--storage s3://bucket/styles --styles monet@prod,tag:print --input s3://bucket/photos "
        "--output s3://bucket/out",
        "--storage runs/demo --styles all --input photos --output out --size original --format jpeg",
        "--storage runs/demo --styles none --text smiling,'grey hair' --input photos --output out --dry-run",
    )

    def config(self) -> StylizeConfig:
        """The method's part."""
        return StylizeConfig(**self.model_dump(include=set(StylizeConfig.model_fields)))

    def output_config(self) -> PictureConfig:
        """How pictures come out."""
        return PictureConfig(**self.model_dump(include=set(PictureConfig.model_fields)))

    def keep(self) -> KeepStructure | None:
        """The structure cache, where one is asked for."""
        place = self.keep_structure
        return KeepStructure(Storage.open(place), self.fit, self.decoder) if place else None

    def packing(self, output: Storage, run_id: str) -> Pack | None:
        """How shards are written, where they are."""
        return Pack(output, self.pack, self.format, run_id) if self.pack else None

    def text_config(self) -> TextConfig:
        """The part of text-driven manipulation."""
        return TextConfig(**self.model_dump(include=set(TextConfig.model_fields)))


@dataclass(frozen=True)
class StylizeJob:
    """A stylize command, resolved: what is read, by which base and styles, and where it goes."""

    flags: StylizeFlags
    storage: Storage
    records: Storage
    """Below it the run is recorded."""
    source: Source
    output: Storage
    base_location: str
    base_name: str
    image_size: int
    variants: tuple[Variant, ...]
    versions: tuple[StyleVersion, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(variant.label for variant in self.variants)


def resolve(flags: StylizeFlags) -> StylizeJob:
    """Resolve ``flags``, reading but writing nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(OsasisError, UnknownStyle)
    attempt = problems.attempt
    storage = attempt("--storage", lambda: reached(flags.storage, writable=False))
    versions = attempt("--styles", lambda: _versions(storage, flags.styles)) if storage else None
    problems.extend(attempt("--styles", lambda: _without_checkpoint(versions or [])) or [])
    source = attempt("--input", lambda: open_source(flags.input, flags.input_column, flags.input_format))
    output = attempt("--output", flags.open_output)
    base = (
        None
        if versions is None and flags.base is None
        else attempt("--base", lambda: base_of_styles(flags.base, versions))
    )
    attempt("--flag", flags.conditions)
    if kept := flags.keep_structure:
        attempt("--keep-structure", lambda: reached(kept, writable=not flags.dry_run))
    variants: tuple[Variant, ...] = ()
    warnings: list[str] = []
    if base:
        problems.extend(other_base(base[1], versions or []))
        attempt("--f-ch, --style-levels", lambda: flags.config().check_levels(len(base[1].unet.channel_mult)))
        for prompt in flags.text:
            unknown = attempt("--text", partial(flags.text_config().check_prompt, prompt, base[1].clip))
            if unknown:
                warnings.append(f"{prompt!r}: the base's CLIP does not know {', '.join(unknown)}")
        variants = make_variants(flags, versions or [], fingerprint(base[1]))
    if output and variants:
        problems.extend(attempt("--output", lambda: occupied(Manifest(output), variants)) or [])
    if problems or not (storage and variants and source and output and base):
        raise ConfigError(problems)
    base_location, spec = base
    return StylizeJob(
        flags=flags,
        storage=storage,
        records=storage if flags.dry_run else _record_place(storage, output),
        source=source,
        output=output,
        base_location=base_location,
        base_name=spec.name,
        image_size=spec.image_size,
        variants=variants,
        versions=tuple(versions or ()),
        warnings=tuple(warnings),
    )


def make_variants(flags: StylizeFlags, versions: Sequence[StyleVersion], base_fingerprint: str) -> tuple[Variant, ...]:
    """Every selected style, and the base alone where that was asked for, with every prompt."""
    plain = [Variant(v.style_id, v.version, v.checkpoint_uri, v.checkpoint_sha256, v.reference_uri) for v in versions]
    if NO_STYLE in _terms(flags.styles):
        plain.insert(0, Variant(NO_STYLE, 0))
    texts: list[str | None] = [*dict.fromkeys(flags.text)] or [None]
    asked = flags.text_config().model_dump(mode="json")
    hashes = {
        text: params_hash(
            flags.config(),
            flags.fit,
            base_fingerprint,
            None if text is None else asked | {"text": text},
            output=flags.output_config(),
            decoder=flags.decoder,
            float16_codes=flags.keep_structure is not None,
        )
        for text in texts
    }
    return tuple(replace(variant, text=text, params_hash=hashes[text]) for text in texts for variant in plain)


def params_hash(
    config: StylizeConfig,
    fit: FitMode,
    base_fingerprint: str,
    text: Mapping[str, Any] | None = None,
    *,
    output: PictureConfig | None = None,
    decoder: int = DECODER,
    float16_codes: bool = False,
) -> str:
    """Identity of the parameters that change pixels, the style aside. 16 hex digits.

    Args:
        text: the prompt with its settings, where there is one.
        output: None: as it always was.
        decoder: version of what pixels come of a file; 1 did not count yet.
    """
    asked = config.model_dump(mode="json", exclude_defaults=True)
    # Parameters that came later count where they are set, so that outputs made before them stay the same outputs.
    values: dict[str, Any] = {
        "config": config.model_dump(mode="json", include=_FIRST) | asked,
        "fit": fit,
        "base": base_fingerprint,
    }
    if text:
        values["text"] = dict(text)
    if output and (changed := output.identity()):
        values["output"] = changed
    if decoder > 1:
        values["decoder"] = decoder
    if float16_codes:
        values["codes"] = "float16"
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _without_checkpoint(versions: Sequence[StyleVersion]) -> list[Problem]:
    hint = "train that style again, or restore the file; style-catalog verify tells more"
    return [Problem("--styles", problem, hint) for problem in checkpoint_problems(versions)]


def _record_place(storage: Storage, output: Storage) -> Storage:
    """Who may only read the catalog has the record with the output."""
    try:
        storage.check_writable()
    except StorageError:
        return output
    return storage


def _terms(selection: str) -> list[str]:
    return [term.strip() for term in selection.split(",")]


def _versions(storage: Storage, selection: str) -> list[StyleVersion]:
    """What the catalog selects; ``none`` is no matter of the catalog's."""
    terms = [term for term in _terms(selection) if term != NO_STYLE]
    return StyleCatalog.open(storage).resolve(",".join(terms)) if terms else []


def base_of_styles(asked: str | None, versions: Sequence[StyleVersion] | None) -> tuple[str, BaseSpec]:
    """Location and spec of the base: the one asked for, else the only one that the styles name, else the default."""
    names = sorted({version.base_name for version in versions or ()}) or [DEFAULT_BASE]
    if asked is None and len(names) > 1:
        raise ValueError(f"the styles need different bases ({', '.join(names)}): run once for each")
    if asked is None and names[0] not in bundled_bases():
        raise ValueError(f"the styles were trained on base {names[0]}, which is not bundled: say where it is")
    return describe_base(asked or names[0])


def other_base(spec: BaseSpec, versions: Sequence[StyleVersion]) -> list[Problem]:
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


def occupied(manifest: Manifest, variants: Sequence[Variant]) -> list[Problem]:
    """Pictures of other parameters would be overwritten, and their rows be wrong."""
    labels = {(variant.pair, variant.text): variant.label for variant in variants}
    taken = [labels[found] for found in manifest.other_parameters(list(labels))]
    hint = "give another --output, or the parameters of that run (--former-decoding where it ignored colour profiles)"
    message = f"holds pictures of {', '.join(taken)} made with other parameters"
    return [Problem("--output", message, hint)] if taken else []
