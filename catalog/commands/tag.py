"""Add tags to versions of styles and remove them: ``tag add SEL TAG…``, ``tag remove SEL TAG…``."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("add", "remove"))
    parser.add_argument(
        "select", metavar="SEL", help="comma list of id (its latest), id@version, id@alias, tag:name, all"
    )
    parser.add_argument("tags", metavar="TAG", nargs="+")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    print_changed(catalog.tag(options.select, **{options.what: options.tags}), "tags changed", json=options.json)
