"""Hide versions of styles. Their files stay, and ``restore`` shows them again, until ``gc`` frees them."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("select", metavar="SEL", help="comma list of id (its latest), id@version, tag:name, all")
    parser.add_argument("--drop-aliases", action="store_true", help="also where an alias points; the alias ends")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    print_changed(catalog.delete(options.select, drop_aliases=options.drop_aliases), "deleted", json=options.json)
