"""Show deleted versions of styles again, as they were."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select", metavar="SEL", help="comma list of id (all its deleted versions), id@version, tag:name"
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    print_changed(catalog.restore(options.select), "restored", json=options.json)
