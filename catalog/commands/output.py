"""How rows are printed: a table for people, JSON and CSV for programs."""

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from json import dumps
from typing import Any, Literal

from catalog.errors import CatalogUsageError

Format = Literal["table", "json", "csv"]

_SHOWN: dict[str, tuple[str, Callable[[Any], str]]] = {
    "style_id": ("style", str),
    "base_name": ("base", str),
    "created_at": ("created (UTC)", lambda time: f"{time:%Y-%m-%d %H:%M}"),
    "checkpoint_bytes": ("MB", lambda size: f"{size / 1e6:.1f}"),
    "train_seconds": ("trained in", lambda seconds: f"{seconds:.0f} s"),
}
"""Heading and text of columns that people read otherwise."""


def print_rows(rows: Iterable[Mapping[str, Any]], form: Format, *, columns: Sequence[str], empty: str) -> None:
    """Prints as the rows come; ``empty`` is said to people alone."""
    if form == "json":
        _print_json(rows)
        return
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row[name]) for name in columns] for row in rows)
        return
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        print(empty)
    else:
        _print_table(chain([first], rows), columns)


def json_value(value: Any) -> Any:
    """For ``json.dumps(default=…)``: times in ISO 8601 with their zone, anything else as text."""
    return value.isoformat() + ("" if value.tzinfo else "Z") if isinstance(value, datetime) else str(value)


def _print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    opened = False
    for row in rows:
        print("," if opened else "[")
        print(dumps(row, default=json_value, allow_nan=False), end="")
        opened = True
    print("\n]" if opened else "[]")


def _print_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(*(_SHOWN.get(name, (name.replace("_", " "), str))[0] for name in columns))
    for row in rows:
        table.add_row(*(Text(_shown(name, row[name])) for name in columns))
    # Into a pipe lines are as long as their content: what is cut there is lost.
    wide = Console(width=100_000)
    Console(width=None if sys.stdout.isatty() else Measurement.get(wide, wide.options, table).maximum).print(table)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    return printable(_SHOWN[name][1](value) if name in _SHOWN else str(_cell(value)))


def printable(text: str) -> str:
    """Without control characters, which could rewrite what a terminal shows."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return json_value(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return dumps(value, default=json_value)
    return value


def print_done(done: Mapping[str, Any], text: str, *, json: bool) -> None:
    """What one command did."""
    print(dumps(done, default=json_value) if json else text)


def check_words(
    options: argparse.Namespace, needed: Mapping[str, Sequence[str]], *, optional: Sequence[str] = ()
) -> None:
    """Of a command with several verbs: each has its own words after it.

    Raises:
        CatalogUsageError: one is missing, or one too many.
    """
    verb = options.what
    for name in dict.fromkeys(word for words in needed.values() for word in words):
        given = getattr(options, name) is not None
        if given and name not in (*needed[verb], *optional):
            raise CatalogUsageError(f"{verb} takes no {name}: {getattr(options, name)!r}")
        if not given and name in needed[verb]:
            raise CatalogUsageError(f"{verb} needs a {name}; --help shows how")


def print_changed(pairs: Iterable[tuple[str, int]], what: str, *, json: bool) -> None:
    """Versions that a command changed, one a line."""
    rows = [{"style_id": style_id, "version": version} for style_id, version in pairs]
    if json:
        _print_json(rows)
        return
    for row in rows:
        print(f"{row['style_id']}@{row['version']} {what}")
