"""The styles file (``styles.yaml``) and the flags that say the same."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from catalog.schema import StyleId, Tag
from cluster.commandline.cli import ConfigError, JobFlags, Problem, check, read_yaml
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
    tags: list[Tag] = Field([], description="Words to select styles by, as in tag:painting.")
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


class TrainStylesFlags(JobFlags):
    """Finetunes styles concurrently, resumes what was interrupted, and registers each in the catalog.

    Styles come from --config, or one from --id and --image. Flags win over the file. Exit codes: 0 done, 1 failed,
    2 bad usage or configuration, 3 finished, but some styles failed (they are named, and in the run record).
    """

    config: str | None = None
    """Styles file (YAML): path or s3:// URI."""
    base: str | None = None
    """Base: bundled name, path or s3:// URI."""
    storage: str | None = None
    """Where checkpoints, catalog and run records go: path or s3:// URI."""
    preset: Preset | None = None
    """official: as the authors' release computes; paper: as the equations are printed."""
    train: TrainConfig = TrainConfig()
    """Settings for every style, over those of the file."""
    id: str | None = None
    """Id of a single style, instead of --config."""
    image: str | None = None
    """Reference picture of the single style."""
    tags: tuple[str, ...] = ()
    """Tags of the single style."""
    workers: int | None = None
    """Styles trained at the same time; default: as many as the cluster holds."""
    cpus_per_worker: float = 1.0
    """CPUs of each training."""
    gpus_per_worker: float = 0.0
    """GPUs of each training; a part of one is possible."""
    checkpoint_every: int = Field(10, gt=0)
    """Iterations between checkpoints to resume from."""
    max_failures: int = Field(3, ge=0)
    """Times that one style's training is taken up again after its worker died."""
    dry_run: bool = False
    """Print the resolved plan and touch nothing."""


def read_styles(flags: TrainStylesFlags) -> tuple[StylesFile, ConfigFile | None]:
    """The styles to train, and the file they stand in.

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
