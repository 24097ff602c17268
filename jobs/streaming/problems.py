"""What is wrong with a command, gathered until all of it is known."""

from collections.abc import Callable
from typing import TypeVar

from catalog.store import UnknownStyle
from cluster.commandline.cli import ConfigError, Problem
from cluster.storage import StorageError
from osasis.errors import OsasisError

T = TypeVar("T")


class Problems(list[Problem]):
    """Problems found so far; errors of flags join them and checking goes on."""

    def attempt(self, flag: str, resolve: Callable[[], T]) -> T | None:
        """What ``resolve`` returns; None where it raises, which is noted at ``flag``."""
        try:
            return resolve()
        except ConfigError as error:
            self.extend(error.problems)
        except (StorageError, UnknownStyle, OsasisError, ValueError, OSError) as error:
            self.append(Problem(flag, str(error)))
        return None
