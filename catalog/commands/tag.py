"""Add and remove tags of versions of styles.

Examples:
  style-catalog tag add van-gogh,hokusai@2 print warm --storage s3://studio/styles
  style-catalog tag remove tag:draft draft --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("add", "remove"), help="what to do")
    parser.add_argument(
        "select", metavar="SEL", help="comma list of ID (its latest version), ID@VERSION, ID@ALIAS, tag:TAG, all"
    )
    parser.add_argument("tags", metavar="TAG", nargs="+", help="one or several tags")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    print_changed(catalog.tag(options.select, **{options.what: options.tags}), "tags changed", json=options.json)
