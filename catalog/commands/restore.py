"""Undo delete: show deleted versions again, as they were.

Examples:
  style-catalog restore van-gogh@2 --storage s3://studio/styles
  style-catalog restore tag:draft --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select", metavar="SEL", help="comma list of ID (all its deleted versions), ID@VERSION, tag:TAG"
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    print_changed(catalog.restore(options.select), "restored", json=options.json)
