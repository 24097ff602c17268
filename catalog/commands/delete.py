"""Hide versions of styles. Their files stay, and restore undoes it, until gc frees them.

Examples:
  style-catalog delete van-gogh@2 --storage s3://studio/styles
  style-catalog delete tag:draft --drop-aliases --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select", metavar="SEL", help="comma list of ID (its latest version), ID@VERSION, ID@ALIAS, tag:TAG, all"
    )
    parser.add_argument(
        "--drop-aliases", action="store_true", help="delete versions that have aliases too, and remove these aliases"
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    print_changed(catalog.delete(options.select, drop_aliases=options.drop_aliases), "deleted", json=options.json)
