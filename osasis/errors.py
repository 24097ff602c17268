"""Errors of the method. Each message says what is wrong, where, and how to fix it.

OsasisError
├── BaseError            a base bundle is missing, incomplete or damaged
├── CheckpointError      a style checkpoint is damaged
│   └── BaseMismatch     …or belongs to another base
├── ForeignFile          a file to import is not what it should be, or holds more than data
├── ImageRejected        one input image cannot be used; ``kind`` is a short stable word
└── NotFinite            NaN or infinity in training; nothing was updated
"""


class OsasisError(Exception):
    """Root of the method's errors."""


class BaseError(OsasisError):
    """A base bundle is missing, incomplete or damaged."""


class CheckpointError(OsasisError):
    """A style checkpoint is damaged or not one."""


class BaseMismatch(CheckpointError):
    """A style checkpoint was trained on another base."""


class ForeignFile(OsasisError):
    """A third-party file cannot be imported; the message names it."""


class ImageRejected(OsasisError):
    """An input image that cannot be used.

    Attributes:
        kind: short stable word for tables, such as "truncated" or "too-large".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotFinite(OsasisError):
    """Loss or gradient is NaN or infinite."""
