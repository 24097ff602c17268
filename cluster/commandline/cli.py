"""What a job's file needs: its flags, its configuration, and :func:`run_job`, which turns errors into exit codes."""

import errno
import re
import sys
from collections.abc import Callable
from typing import Never

from rich.console import Console
from rich.markup import escape

from cluster.commandline.config_file import ConfigError, Problem, check, load_yaml, read_yaml
from cluster.commandline.exit_code import ExitCode
from cluster.commandline.flags import (
    ConcurrencyFlags,
    ElasticFlags,
    JobFlags,
    OutputUri,
    Uri,
    WorkersFlags,
    parse_flags,
)
from cluster.commandline.redact import redact
from cluster.commandline.terminal import lenient_output
from cluster.runtime.connection import ClusterError
from cluster.runtime.loss import RayLost, is_lost, leave
from cluster.runtime.signals import stay_stopped, stopped_by_signals
from cluster.storage import StorageError

__all__ = [
    "ConcurrencyFlags", "ConfigError", "ElasticFlags", "ExitCode", "JobFlags", "OutputUri", "Problem", "Uri",
    "WorkersFlags", "check", "load_yaml", "parse_flags", "read_yaml", "run_job",
]  # fmt: skip

_NO_SPACE = re.compile(r"[^\n]*(?:No space left on device|os error 28|Disk quota exceeded)[^\n]*", re.IGNORECASE)


def run_job(main: Callable[[], int | None], *, expected: tuple[type[Exception], ...] = ()) -> Never:
    """Runs a job's ``main`` and leaves the process with its :class:`ExitCode`.

    Configuration errors are listed on stderr (2). ``expected`` errors, such as those of storage, and a full disk are
    shown by their message (1), all others with a traceback (1). What becomes of the terminal changes no exit code.
    """
    lenient_output()
    with stopped_by_signals():
        code = _outcome(main, (StorageError, RayLost, *expected))
        stay_stopped()
        if is_lost():
            leave(code)
    sys.exit(code)


def _outcome(main: Callable[[], int | None], expected: tuple[type[Exception], ...]) -> ExitCode:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        return ExitCode(main() or ExitCode.DONE)
    except ConfigError as error:
        for problem in error.problems:
            hint = f" [dim]({escape(redact(problem.hint))})[/dim]" if problem.hint else ""
            message = escape(redact(problem.message))
            console.print(f"[bold]{escape(redact(problem.place))}[/bold]: [red]{message}[/red]{hint}")
        return ExitCode.BAD_USAGE
    except ClusterError as error:
        _show(console, str(error))
        return ExitCode.BAD_USAGE
    except expected as error:
        _show(console, str(error))
    except KeyboardInterrupt as error:
        _show(console, str(error) or "interrupted")
    except Exception as error:
        if full := disk_full(error):
            _show(console, full)
        else:
            console.print_exception(show_locals=False)
    return ExitCode.FAILED


def _show(console: Console, message: str) -> None:
    console.print(f"[bold red]error:[/bold red] {escape(redact(message))}")


def disk_full(error: BaseException) -> str | None:
    """A sentence if a full disk is the cause of ``error``, anywhere in its chain and in whatever words; else None."""
    cause: BaseException | None = error
    while cause is not None:
        number = getattr(cause, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or _NO_SPACE.search(str(cause)):
            where = getattr(cause, "filename", None)
            at = f" at {where}" if where else f": {found[0]}" if (found := _NO_SPACE.search(str(cause))) else ""
            return f"no space left{at}; what is recorded as done is safe: free space and give the same command again"
        cause = cause.__cause__ or cause.__context__
    return None
