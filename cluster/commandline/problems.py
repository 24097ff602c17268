"""What is wrong with a command, gathered until all of it is known."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from cluster.commandline.config_file import ConfigError, Problem, problem_of
from cluster.storage import StorageError

T = TypeVar("T")
Place = str | Callable[..., str]
"""Where a problem stands: a flag, or a function of the keys below it that pydantic complains about."""


class Problems(list[Problem]):
    """Problems found so far; what is wrong with one flag joins them, and checking goes on.

    ``expected``: error types, beside those of storage and values, whose message is meant for people.
    """

    def __init__(self, *expected: type[Exception]) -> None:
        super().__init__()
        self._expected: tuple[type[Exception], ...] = (StorageError, ValueError, OSError, *expected)

    def attempt(self, place: Place, resolve: Callable[[], T]) -> T | None:
        """What ``resolve`` returns; None where it raises, which is noted at ``place``."""

        def place_of(*keys: int | str) -> str:
            return place if isinstance(place, str) else place(*keys)

        try:
            return resolve()
        except ConfigError as error:
            self.extend(error.problems)
        except ValidationError as error:
            self.extend(problem_of(detail, place_of(*detail["loc"])) for detail in error.errors(include_url=False))
        except self._expected as error:
            self.append(Problem(place_of(), str(error)))
        return None

    def check(self) -> None:
        """Raises ConfigError with all of them, if there are any."""
        if self:
            raise ConfigError(self)
