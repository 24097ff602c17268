"""The styles file (``styles.yaml``) and the equivalent flags."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, model_validator

from catalog.schema import StyleId, Tag
from cluster.commandline.cli import (
    ConcurrencyFlags,
    ConfigError,
    ElasticFlags,
    JobFlags,
    OutputUri,
    Problem,
    Uri,
    check,
    read_yaml,
)
from cluster.commandline.config_file import ConfigFile, problem_of
from cluster.commandline.help import flag_name
from cluster.runtime.resources import Node, Resources
from osasis.settings import Preset, TrainConfig, train_config


class StyleEntry(BaseModel):
    """One style to train."""

    model_config = ConfigDict(extra="forbid")

    id: StyleId = Field(description="Lowercase letters, digits and hyphens.")
    image: str = Field(min_length=1, description="The reference picture: path or s3:// URI.")
    tags: list[Tag] = Field([], description="Tags to select styles by, as in tag:painting.")
    notes: str = ""
    license: str = Field("", description="Terms of the reference picture.")
    train: TrainConfig = Field(TrainConfig(), description="Settings for this style alone, over those for all.")


class StylesFile(BaseModel):
    """``styles.yaml``."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field("mini64", description="Base: bundled name, path or s3:// URI.")
    storage: OutputUri = Field(min_length=1, description="Where checkpoints, catalog and run records go.")
    preset: Preset = "official"
    train: TrainConfig = Field(TrainConfig(), description="Settings for every style.")
    styles: list[StyleEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "StylesFile":
        ids = [style.id for style in self.styles]
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(f"style ids given twice: {', '.join(repeated)}")
        return self

    def config_of(self, style: StyleEntry, base_defaults: dict[str, Any]) -> TrainConfig:
        """Preset, then the base's own defaults, then the file's, then the style's; later ones win."""
        layers = [config.model_dump(exclude_unset=True) for config in (self.train, style.train)]
        return train_config(self.preset, base_defaults, *layers)


class StylesFlags(JobFlags):
    """What is trained: the styles of a file, over which flags win, or a single style."""

    config: Uri | None = Field(None, description="Styles file (YAML).")
    storage: OutputUri | None = Field(
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


class TogetherFlags(ElasticFlags):
    """How many workers train at once, and how many processes each has, for styles that one GPU is too slow for."""

    processes_per_style: int = Field(
        1,
        ge=1,
        description="Processes that train a style together, on one node, each with a part of every batch and with the"
        " CPUs and GPUs given per worker.",
    )

    def resources(self, there: Sequence[Node]) -> Resources:
        """What each worker takes of a cluster that holds these nodes, with all its processes."""
        one = super().resources(there)
        if self.processes_per_style > 1 and 0 < one.gpus < 1:
            given = f"{one.gpus:g} GPUs"
            raise ConfigError(
                Problem("--processes-per-style", f"processes of one style share no GPU ({given} each)", "give each 1")
            )
        return one.times(self.processes_per_style)


class MemoryFlags(JobFlags):
    """What a training may take of a GPU."""

    memory: ByteSize | None = Field(
        None,
        gt=0,
        description="GPU memory that a training may take, as 24GB or 16GiB, beside what CUDA itself does; where it is"
        " short, activations are recomputed and contents divided. Default: all.",
        json_schema_extra={"metavar": "SIZE"},
    )

    def check_memory(self, device: str) -> None:
        """Raises ConfigError where a limit is given and ``device``, as torch names it, is no GPU."""
        if self.memory and device == "cpu":
            given = self.memory.human_readable(decimal=True)
            message = f"limits a GPU's memory ({given}), and this job computes on CPUs"
            raise ConfigError(Problem("--memory", message, "leave it out, or give --gpus-per-worker 1"))


class RetriesFlags(JobFlags):
    """What happens when a worker dies."""

    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Seconds between states to resume from; 0: after every iteration."
    )
    max_failures: int = Field(3, ge=0, description="How often a style's training is resumed after its worker died.")


class TrainStylesFlags(StylesFlags, SingleStyleFlags, TogetherFlags, MemoryFlags, RetriesFlags, ConcurrencyFlags):
    """Finetune styles concurrently, resume what was interrupted, and register each in the catalog.

    Give --config, or --storage, --id and --image.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--config styles.yaml",
        "--storage runs/mine --id my-style --image painting.jpg --train.iterations 100",
        "--config styles.yaml --storage s3://bucket/styles --base s3://bucket/bases/faces64",
    )

    train: TrainConfig = TrainConfig()


@dataclass(frozen=True)
class Declared:
    """What a command declares, not yet checked: the file's keys under the flags', or a single style's."""

    file: ConfigFile | None
    data: dict[str, Any]
    from_flags: dict[str, Any]
    """Top-level keys that flags give, over those of the file."""

    def place(self, *keys: str | int) -> str:
        """Where a key stands: in the file, or a flag."""
        if self.file and keys and keys[0] not in self.from_flags:
            return self.file.place(*keys)
        return flag_name(*(keys[2:] or ("id",) if keys[:2] == ("styles", 0) else keys))

    def check(self) -> StylesFile:
        """Raises ConfigError with every problem that the data alone show."""
        if self.file:
            return check(self.file, StylesFile, self.from_flags)
        try:
            return StylesFile.model_validate(self.data | self.from_flags)
        except ValidationError as error:
            details = error.errors(include_url=False)
            raise ConfigError(
                [problem_of(detail, self.place(*detail["loc"]), StylesFile) for detail in details]
            ) from None


def declared_styles(flags: TrainStylesFlags) -> Declared:
    """The styles to train, as they are declared.

    Raises:
        ConfigError: nothing is declared, two things are, or the file cannot be read.
    """
    values: dict[str, Any] = {"base": flags.base, "storage": flags.storage, "preset": flags.preset}
    overrides = {name: value for name, value in values.items() if value is not None}
    train = flags.train.model_dump(exclude_unset=True)
    if flags.config is None:
        if flags.id is None or flags.image is None:
            raise ConfigError(Problem("command line", "nothing to train", "give --config, or --id and --image"))
        single = {"id": flags.id, "image": flags.image, "tags": list(flags.tags)}
        return Declared(None, {"styles": [single], "train": train}, overrides)
    if flags.id or flags.image:
        raise ConfigError(Problem("--id", "cannot be combined with --config"))
    file = read_yaml(flags.config)
    of_file = file.data.get("train")
    if train and isinstance(of_file or {}, dict):
        overrides["train"] = {**(of_file or {}), **train}
    return Declared(file, file.data, overrides)
