"""Flags that choose styles, shared by ``list`` and ``search``."""

import argparse
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from catalog.filters import Condition


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where", action="append", default=[], metavar="COND",
        help="column or metric, one of = != < <= > >= ~ (contains), value; such as structure>0.8; may be repeated",
    )  # fmt: skip
    parser.add_argument("--style", metavar="ID", help="versions of one style")
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="with this tag; may be repeated")
    parser.add_argument("--alias", metavar="NAME", help="to which such an alias points")
    parser.add_argument("--base", metavar="NAME", help="trained on the base of this name or fingerprint")
    parser.add_argument("--since", metavar="DATE", help="registered at or after, UTC: 2026-03-01")
    parser.add_argument("--until", metavar="DATE", help="registered before, UTC")
    parser.add_argument("--latest", action="store_true", help="only the newest version of each style")


def conditions(options: argparse.Namespace) -> "list[Condition]":
    """Raises CatalogUsageError for one that cannot be read."""
    from catalog.filters import Condition, of_style, of_tag, parse_time

    found = [Condition.parse(text) for text in options.where]
    found += [of_style(options.style)] if options.style else []
    found += [of_tag(tag) for tag in options.tag]
    found += [Condition("aliases", "=", options.alias)] if options.alias else []
    if options.base:
        fingerprint = len(options.base) == 16 and not set(options.base) - set("0123456789abcdef")
        found.append(Condition("base_fingerprint" if fingerprint else "base_name", "=", options.base))
    found += [Condition("created_at", ">=", parse_time(options.since))] if options.since else []
    found += [Condition("created_at", "<", parse_time(options.until))] if options.until else []
    return found


def add_forms(parser: argparse.ArgumentParser) -> None:
    """``--csv`` beside the ``--json`` of every command."""
    parser.add_argument("--csv", action="store_true", help="print CSV")


def form_of(options: argparse.Namespace) -> Literal["table", "json", "csv"]:
    return "json" if options.json else "csv" if options.csv else "table"


def count(text: str) -> int:
    """A number of rows, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("0 or above")
    return number
