"""Conditions on styles, as people write them: ``structure>0.8``, ``base_name=mini64``, ``tags=painting``."""

import math
import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog.columns import COMPARED, STYLE_COLUMNS, Kind
from catalog.errors import CatalogUsageError
from catalog.selector import STYLE_ID, check_style_id

_CONDITION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*(<=|>=|!=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """``name op value``. For lists ``=`` means: holds the value; ``~`` means: contains the text, in any case.

    Raises:
        CatalogUsageError: the column cannot be compared so, or the value is not of its kind.
    """

    name: str
    op: str
    value: str | int | float | datetime

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """From ``column op value`` or ``metric op number`` with op one of = != < <= > >= ~."""
        found = _CONDITION.fullmatch(text)
        if not found:
            raise CatalogUsageError(f"cannot read the condition {text!r}: write it as name=value or structure>0.8")
        name, op, value = found.groups()
        kind = COMPARED.get(name, "number")
        if kind == "number" and op != "~":
            return cls(name, op, _number(name, value))
        if kind == "time" and op != "~":
            return cls(name, op, parse_time(value))
        if op not in _OPERATORS[kind]:
            allowed = " ".join(_OPERATORS[kind])
            raise CatalogUsageError(f"{text!r}: {name} is compared by one of {allowed}")
        return cls(name, op, value)

    def sql(self, number: int) -> tuple[str, dict[str, str | int | float | datetime]]:
        """(DuckDB expression, its parameters); ``number`` keeps parameters of several conditions apart."""
        key = f"value_{number}"
        kind = COMPARED.get(self.name)
        parameters: dict[str, str | int | float | datetime] = {key: self.value}
        if kind is None:
            parameters[f"metric_{number}"] = self.name
            return f"metrics[$metric_{number}] {self.op} ${key}", parameters
        if kind == "list":
            return f"{'' if self.op == '=' else 'not '}list_contains({self.name}, ${key})", parameters
        if self.op == "~":
            return f"contains(lower({self.name}), lower(${key}))", parameters
        return f"{self.name} {'is distinct from' if self.op == '!=' else self.op} ${key}", parameters

    def holds(self, value: float | None) -> bool:
        """Of a number; of None nothing holds."""
        compare = {
            "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
            ">=": operator.ge,
        }  # fmt: skip
        return value is not None and bool(compare[self.op](value, self.value))

    def pushed(self) -> str | None:
        """The same for the table's own reader, which then skips files; None where only the view can tell."""
        column = STYLE_COLUMNS.get(self.name)
        if (
            column is None
            or not column.as_stored
            or self.op in ("~", "!=")
            or column.kind not in ("text", "number", "time")
        ):
            return None
        return f"{self.name} {self.op} {_literal(self.value)}"


_OPERATORS: dict[Kind, tuple[str, ...]] = {
    "text": ("=", "!=", "<", "<=", ">", ">=", "~"),
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "time": ("=", "!=", "<", "<=", ">", ">="),
    "list": ("=", "!="),
    "json": ("=", "!=", "~"),
    "other": (),
}


def of_style(style_id: str) -> Condition:
    """Raises CatalogUsageError where it is no style id."""
    try:
        return Condition("style_id", "=", check_style_id(style_id))
    except ValueError as error:
        raise CatalogUsageError(str(error)) from None


def of_tag(tag: str) -> Condition:
    """Raises CatalogUsageError where it is no tag."""
    if not re.fullmatch(STYLE_ID, tag):
        raise CatalogUsageError(f"{tag!r}: a tag is of small letters, digits and '-'")
    return Condition("tags", "=", tag)


def parse_time(text: str) -> datetime:
    """A date or time of ISO 8601, in UTC unless it says otherwise; naive, in UTC, as the view compares it.

    Raises:
        CatalogUsageError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise CatalogUsageError(f"{text!r} is not a date: write 2026-03-01 or 2026-03-01T12:00") from None
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _number(name: str, text: str) -> int | float:
    try:
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        hint = "" if name in COMPARED else f" ({name} is not a column, so it is taken for a metric)"
        raise CatalogUsageError(f"{name}: {text!r} is not a number{hint}") from None


def _literal(value: str | int | float | datetime) -> str:
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat()}Z'"
    return repr(value) if isinstance(value, (int, float)) else "'" + value.replace("'", "''") + "'"
