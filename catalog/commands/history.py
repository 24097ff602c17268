"""Events of a style after its registration, and who made them: aliases, tags, notes, deletions; the oldest first."""

import argparse
from typing import TYPE_CHECKING

from catalog.commands.filtering import add_forms, form_of

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("style", metavar="ID[@ALIAS]", help="a style, or one of its aliases")
    add_forms(parser)


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_rows

    style_id, _, alias = options.style.partition("@")
    rows = catalog.history(style_id, alias or None)
    columns = ("happened_at", "author", "kind", "version", "name", "text")
    print_rows(rows, form_of(options), columns=columns, empty=f"no events of {options.style}")
