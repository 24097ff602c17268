"""Flags of a job, declared as pydantic fields.

A flag is a field with ``Field(description=…)``; the class that declares it is its group in ``--help``: the class's
name is the group's title, its docstring the sentence below. A job's flags are one class that inherits from such
groups, in the order in which the help shows them, and from the settings of the method (models of :mod:`osasis`).
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cluster.commandline import logs
from cluster.commandline.config_file import ConfigError, Problem, nearest, problem_of
from cluster.commandline.durations import Duration
from cluster.commandline.help import HelpFormatter, arrange, flag_name
from cluster.commandline.logs import LogFormat
from cluster.runtime.connection import SUBMITTED_JOB
from cluster.runtime.resources import Node, Resources, settled
from cluster.runtime.target import Target
from cluster.storage import StorageError
from cluster.storage.names import check_expanded, check_place

F = TypeVar("F", bound="JobFlags")


def _meant(uri: str) -> str:
    try:
        return check_expanded(uri)
    except StorageError as error:
        raise ValueError(str(error)) from None


Uri = Annotated[str, Field(json_schema_extra={"metavar": "URI"}), AfterValidator(_meant)]
"""A local path or ``s3://bucket/prefix``; shown as URI. ``~`` is expanded where it is opened."""


def _lasting(uri: str) -> str:
    """Refuses what would be found elsewhere than a person expects, or nowhere.

    Below the driver of a submitted job, a relative path lies in Ray's copy of the working directory, which is deleted
    some time after the job "succeeded".
    """
    try:
        check_place(uri)
    except StorageError as error:
        raise ValueError(str(error)) from None
    if SUBMITTED_JOB in os.environ and "://" not in uri and not os.path.isabs(os.path.expanduser(uri)):
        raise ValueError(
            f"{uri!r} is relative: in a submitted job it would lie in Ray's copy of the working directory, which is "
            "deleted later; give an absolute path that every node sees, or s3://bucket/prefix"
        )
    return uri


OutputUri = Annotated[Uri, AfterValidator(_lasting)]
"""A :data:`Uri` that is written to and must outlive the job."""


class JobFlags(BaseSettings):
    """Base of a job's flags: fields become ``--kebab-case`` flags, the class's docstring the description.

    Flags come from the command line alone, never from the environment.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    examples: ClassVar[tuple[str, ...]] = ()
    """Arguments of typical commands, for the end of the help."""

    dry_run: bool = Field(False, description="Print the resolved plan and change nothing.")
    log_format: LogFormat = Field(
        "text",
        description="Of log lines: text or json.",
        json_schema_extra={"metavar": "FORMAT"},
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class WorkersFlags(JobFlags):
    """How many workers run at once, and what each takes of the cluster."""

    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs of each worker.")
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="GPUs of each worker; a fraction shares one. auto: 1 where the cluster has GPUs, else 0."
    )
    accelerator: str = Field(
        "", pattern="^[A-Za-z0-9._-]*$", description="Only GPUs of this type, as Ray names it: A100, L4."
    )
    wait: Duration = Field(
        timedelta(minutes=15), description="How long to wait where the cluster has no room for a worker; 0: not at all."
    )

    @property
    def threads(self) -> int:
        """Threads of a worker's torch."""
        return max(1, round(self.cpus_per_worker))

    def resources(self, there: Sequence[Node]) -> Resources:
        """What each worker takes of a cluster that holds these nodes."""
        return settled(self.cpus_per_worker, self.gpus_per_worker, self.accelerator, there)


WorkersTarget = Annotated[
    Target, NoDecode, BeforeValidator(Target.parse), PlainSerializer(str), Field(json_schema_extra={"metavar": "N"})
]


class ElasticFlags(WorkersFlags):
    workers: WorkersTarget = Field(
        Target(),
        description="Number of workers: 8; a range, 2-64, of which the first are asked for at once and the rest are "
        "used as they come; auto: as many as there is room for, at any time.",
    )


class ConcurrencyFlags(JobFlags):
    """What happens when another job works on the same output or style."""

    if_busy: Literal["leave", "wait"] = Field(
        "leave", description="leave: say who holds it and stop; wait: start when that job has ended."
    )


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(Problem("command line", message, "--help lists the flags"))


def parse_flags(
    flags: type[F], args: Sequence[str] | None = None, *, further: Callable[[F], object] | None = None
) -> F:
    """Reads the command line; ``--help`` prints and exits with 0.

    Args:
        further: what checks the flags next. Where an optional flag is wrong, this is tried without it, so that its
            problems are told at once.

    Raises:
        ConfigError: with every unknown flag, missing flag and bad value.
    """
    parser = _Parser(
        prog=_program(), add_help=False, allow_abbrev=False, formatter_class=HelpFormatter, conflict_handler="resolve"
    )
    problems: list[Problem] = []

    def parse(parser: ArgumentParser, given: Sequence[str]) -> Namespace:
        parsed, unknown = parser.parse_known_args(given)
        problems.extend(_unknown(unknown, parser))
        return parsed

    source: CliSettingsSource[Any] = CliSettingsSource(flags, root_parser=parser, parse_args_method=parse)
    arrange(parser, flags, JobFlags)
    try:
        found: F | None = CliApp.run(
            flags, cli_args=list(sys.argv[1:] if args is None else args), cli_settings_source=source
        )
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [problem_of(detail, flag_name(*detail["loc"]), flags) for detail in details]
        found = _without(flags, source(), [detail["loc"] for detail in details])
    if problems or found is None:
        raise ConfigError([*problems, *(_further(found, further) if found and further else ())])
    logs.set_up(found.log_format)
    return found


def _without(flags: type[F], given: dict[str, Any], wrong: Sequence[tuple[int | str, ...]]) -> F | None:
    """The flags with the wrong ones left at their defaults; None where they have none."""
    for loc in wrong:
        values = given
        for key in map(str, loc):
            if not isinstance(inner := values.get(key), dict):
                values.pop(key, None)
                break
            values = inner
    try:
        return flags(**given)
    except ValidationError:
        return None


def _further(found: F, check: Callable[[F], object]) -> list[Problem]:
    try:
        check(found)
    except ConfigError as error:
        return error.problems
    except StorageError as error:
        return [Problem("storage", str(error))]
    return []


def _program() -> str:
    """How this command was called: ``python jobs/stylize.py``, or the name of an installed script."""
    path = sys.argv[0] if sys.argv and sys.argv[0] else "python"
    if not path.endswith(".py"):
        return os.path.basename(path)
    try:
        return f"python {os.path.relpath(path)}"
    except FileNotFoundError:  # the current folder was deleted
        return f"python {path}"


def _unknown(arguments: Sequence[str], parser: ArgumentParser) -> list[Problem]:
    """A problem for each flag that does not exist (its values are not counted), and for each stray word."""
    known = [name for action in parser._actions for name in action.option_strings]
    problems = []
    flag = ""
    for argument in arguments:
        if argument.startswith("-"):
            flag = argument.partition("=")[0]
            problems.append(Problem(flag, "no such flag", nearest(flag, known) or "--help lists the flags"))
        elif not flag:
            problems.append(Problem("command line", f"unexpected {argument!r}", "--help lists the flags"))
    return problems
