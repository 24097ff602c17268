"""The styles file (``styles.yaml``) and the equivalent flags."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from catalog.schema import StyleId, Tag
from cluster.commandline.cli import (
    ConcurrencyFlags,
    ConfigError,
    JobFlags,
    Problem,
    Uri,
    WorkersFlags,
    check,
    read_yaml,
)
from cluster.commandline.config_file import ConfigFile, problem_of
from osasis.settings import Preset, TrainConfig, train_config


def _checked_overrides(values: dict[str, Any]) -> dict[str, Any]:
    """TrainConfig fields; validated alone here for early errors, and together with preset and base later."""
    TrainConfig.model_validate(values)
    return values


class StyleEntry(BaseModel):
    """One style to train."""

    model_config = ConfigDict(extra="forbid")

    id: StyleId = Field(description="Lowercase letters, digits and hyphens.")
    image: str = Field(min_length=1, description="The reference picture: path or s3:// URI.")
    tags: list[Tag] = Field([], description="Tags to select styles by, as in tag:painting.")
    notes: str = ""
    license: str = Field("", description="Terms of the reference picture.")
    train: dict[str, Any] = Field({}, description="TrainConfig fields for this style alone.")

    _train = field_validator("train")(_checked_overrides)


class StylesFile(BaseModel):
    """``styles.yaml``."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field("mini64", description="Base: bundled name, path or s3:// URI.")
    storage: str = Field(min_length=1, description="Where checkpoints, catalog and run records go: path or s3:// URI.")
    preset: Preset = "official"
    train: dict[str, Any] = Field({}, description="TrainConfig fields for every style.")
    styles: list[StyleEntry] = Field(min_length=1)

    _train = field_validator("train")(_checked_overrides)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "StylesFile":
        ids = [style.id for style in self.styles]
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(f"style ids given twice: {', '.join(repeated)}")
        return self

    def config_of(self, style: StyleEntry, base_defaults: dict[str, Any]) -> TrainConfig:
        """Preset, then the base's own defaults, then the file's, then the style's; later ones win."""
        return train_config(self.preset, base_defaults, self.train, style.train)


class StylesFlags(JobFlags):
    """What is trained: the styles of a file, over which flags win, or a single style."""

    config: Uri | None = Field(None, description="Styles file (YAML).")
    storage: Uri | None = Field(
        None, description="Where checkpoints, catalog and run records go; required unless the file names it."
    )
    base: Uri | None = Field(None, description="Base: bundled name or URI; default: the file's, or mini64.")
    preset: Preset | None = Field(
        None, description="official: as the authors' release computes; paper: as the equations are printed."
    )


class SingleStyleFlags(JobFlags):
    """One style without a file."""

    id: str | None = Field(None, description="Its id: lowercase letters, digits and hyphens.")
    image: Uri | None = Field(None, description="Its reference picture.")
    tags: tuple[str, ...] = Field((), description="Its tags.")


class RetriesFlags(JobFlags):
    """What happens when a worker dies."""

    checkpoint_every: int = Field(10, gt=0, description="Iterations between checkpoints to resume from.")
    max_failures: int = Field(3, ge=0, description="How often a style's training is resumed after its worker died.")


class TrainStylesFlags(StylesFlags, SingleStyleFlags, WorkersFlags, RetriesFlags, ConcurrencyFlags):
    """Finetune styles concurrently, resume what was interrupted, and register each in the catalog.

    Give --config, or --storage, --id and --image.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--config styles.yaml",
        "--storage runs/mine --id my-style --image painting.jpg --train.iterations 100",
        "--config styles.yaml --storage s3://bucket/styles --base s3://bucket/bases/faces64 --gpus-per-worker 1",
    )

    train: TrainConfig = TrainConfig()


def read_styles(flags: TrainStylesFlags) -> tuple[StylesFile, ConfigFile | None]:
    """The styles to train, and the file they are declared in.

    Raises:
        ConfigError: with every problem found.
    """
    overrides: dict[str, Any] = {"base": flags.base, "storage": flags.storage, "preset": flags.preset}
    train = flags.train.model_dump(exclude_unset=True)
    if flags.config is None:
        if flags.id is None or flags.image is None:
            raise ConfigError(Problem("command line", "nothing to train", "give --config, or --id and --image"))
        single = {"id": flags.id, "image": flags.image, "tags": list(flags.tags)}
        try:
            given = {key: value for key, value in overrides.items() if value is not None}
            return StylesFile.model_validate({"styles": [single], "train": train, **given}), None
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            raise ConfigError(
                [problem_of(d, f"--{d['loc'][-1] if d['loc'] else 'id'}", StylesFile) for d in details]
            ) from error
    if flags.id or flags.image:
        raise ConfigError(Problem("--id", "cannot be combined with --config"))
    file = read_yaml(flags.config)
    if train:
        overrides["train"] = {**(file.data.get("train") or {}), **train}
    return check(file, StylesFile, overrides), file
