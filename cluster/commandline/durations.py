"""Durations as they are typed: ``30d``, ``12h``, ``15m``, ``90s``, ``0``."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def parse_duration(text: str) -> timedelta:
    """Raises ValueError where it cannot be read."""
    found = re.fullmatch(r"([0-9]{1,6})([dhms])|0", text)
    if not found:
        raise ValueError(f"must be a duration such as 30d, 12h, 15m, 90s or 0, not {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found[2] else timedelta(0)


def typed(duration: timedelta) -> str:
    """As it would be typed."""
    seconds = round(duration.total_seconds())
    return f"{seconds // 60}m" if seconds and seconds % 60 == 0 else f"{seconds}s" if seconds else "0"


def in_words(duration: timedelta) -> str:
    """``90 s``, ``15 min``, ``3 h 20 min``."""
    seconds = duration.total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _given(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_given),
    PlainSerializer(typed),
    Field(json_schema_extra={"metavar": "DURATION"}),
]
"""A flag."""
