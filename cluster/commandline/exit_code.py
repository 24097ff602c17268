"""How a job reports its outcome to its caller."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The contract of every job in ``jobs/``."""

    DONE = 0
    FAILED = 1
    BAD_USAGE = 2
    RECORDED_FAILURES = 3
