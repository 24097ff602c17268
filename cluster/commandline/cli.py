"""Command lines of jobs: flags, exit codes and how errors are shown."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Never, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from rich.console import Console
from rich.markup import escape

from cluster.commandline.config_file import ConfigError, Problem, check, load_yaml, problem_of, read_yaml
from cluster.commandline.exit_code import ExitCode
from cluster.commandline.redact import redact
from cluster.runtime.connection import ClusterError
from cluster.storage import StorageError

__all__ = [
    "ConfigError", "ExitCode", "JobFlags", "Problem",
    "check", "load_yaml", "parse_flags", "read_yaml", "run_job",
]  # fmt: skip

F = TypeVar("F", bound="JobFlags")


class JobFlags(BaseSettings):
    """Base of a job's flags: fields become ``--kebab-case`` flags, their docstrings the help.

    The class's docstring is the description. Flags come from the command line alone, never from the environment.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
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


def parse_flags(flags: type[F], args: Sequence[str] | None = None) -> F:
    """Reads the command line; ``--help`` prints and exits with 0.

    Raises:
        ConfigError: unknown flags, missing ones and bad values.
    """
    source: CliSettingsSource[Any] = CliSettingsSource(flags, cli_exit_on_error=False)
    try:
        return CliApp.run(flags, cli_args=list(sys.argv[1:] if args is None else args), cli_settings_source=source)
    except SettingsError as error:
        message = str(error.__cause__ or error)
        raise ConfigError(Problem("command line", message, "--help lists the flags")) from error
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise ConfigError([problem_of(detail, _flag(detail["loc"]), flags) for detail in details]) from error


def _flag(loc: tuple[int | str, ...]) -> str:
    return "--" + ".".join(str(part).replace("_", "-") for part in loc) if loc else "command line"


def run_job(main: Callable[[], int | None], *, expected: tuple[type[Exception], ...] = ()) -> Never:
    """Runs a job's ``main`` and leaves the process with its :class:`ExitCode`.

    Configuration errors are listed on stderr (2). ``expected`` errors, such as those of storage, are shown by their
    message (1), all others with a traceback (1).
    """
    console = Console(stderr=True)
    known: tuple[type[Exception], ...] = (StorageError, *expected)
    try:
        code = ExitCode(main() or ExitCode.DONE)
    except ConfigError as error:
        for problem in error.problems:
            hint = f" [dim]({escape(problem.hint)})[/dim]" if problem.hint else ""
            console.print(
                f"[bold]{escape(redact(problem.place))}[/bold]: [red]{escape(redact(problem.message))}[/red]{hint}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        code = ExitCode.BAD_USAGE
    except ClusterError as error:
        _show(console, error)
        code = ExitCode.BAD_USAGE
    except known as error:
        _show(console, error)
        code = ExitCode.FAILED
    except KeyboardInterrupt as error:
        _show(console, error if str(error) else KeyboardInterrupt("interrupted"))
        code = ExitCode.FAILED
    except Exception:
        console.print_exception(show_locals=False)
        code = ExitCode.FAILED
    sys.exit(code)


def _show(console: Console, error: BaseException) -> None:
    console.print(f"[bold red]error:[/bold red] {escape(redact(str(error)))}", highlight=False, soft_wrap=True)
