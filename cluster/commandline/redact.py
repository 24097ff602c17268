"""Keeps secrets out of records and messages."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(
    r"(?:^|[-_.])(?:secret|token|passwd|password|credentials?|api[-_]?key|access[-_]?key)(?:[-_.]|$)", re.IGNORECASE
)
_URL_USER = re.compile(r"(?<=://)[^/@\s]+@")
_URL_QUERY = re.compile(r"(?<=://)([^\s?]+)\?[^\s'\"]+")  # presigned URLs carry their signature there
_SHORTEST = 6
"""Shorter values of secret variables would be found by accident everywhere."""


def redact(value: Any, name: str = "") -> Any:
    """A copy of JSON-like ``value`` without secrets.

    Hidden are values under names such as ``token`` or ``secret_key``, users and queries in URLs, and, wherever they
    stand, the values of environment variables with such names. Bytes that are not UTF-8 are escaped.
    """
    if name and _SECRET_NAME.search(name) and isinstance(value, str):
        return _HIDDEN
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [redact(item, name) for item in value]
    return value


def redact_argv(argv: Sequence[str]) -> list[str]:
    """Command line without secrets, given as ``--token VALUE``, ``--token=VALUE`` or within a URL."""
    redacted: list[str] = []
    name = ""
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if equals:
            redacted.append(f"{flag}={redact(value, flag)}" if _SECRET_NAME.search(flag) else _redact_text(argument))
            name = ""
        else:
            redacted.append(redact(argument, name if not argument.startswith("-") else ""))
            name = argument if argument.startswith("-") else ""
    return redacted


def _redact_text(text: str) -> str:
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_NAME.search(name):
            text = text.replace(value, _HIDDEN)
    text = _URL_QUERY.sub(rf"\1?{_HIDDEN}", _URL_USER.sub(f"{_HIDDEN}@", text))
    # Names that are not UTF-8 hold surrogates, which neither JSON nor a terminal can.
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
