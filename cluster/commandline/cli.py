"""What a job's file needs: its flags, its configuration, and :func:`run_job`, which turns errors into exit codes."""

import sys
from collections.abc import Callable
from typing import Never

from rich.console import Console
from rich.markup import escape

from cluster.commandline.config_file import ConfigError, Problem, check, load_yaml, read_yaml
from cluster.commandline.exit_code import ExitCode
from cluster.commandline.flags import ConcurrencyFlags, JobFlags, Uri, WorkersFlags, parse_flags
from cluster.commandline.redact import redact
from cluster.runtime.connection import ClusterError
from cluster.storage import StorageError

__all__ = [
    "ConcurrencyFlags", "ConfigError", "ExitCode", "JobFlags", "Problem", "Uri", "WorkersFlags",
    "check", "load_yaml", "parse_flags", "read_yaml", "run_job",
]  # fmt: skip


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
