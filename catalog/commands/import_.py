"""Register the styles of a bundle as the next versions here; a version whose checkpoint is registered already is kept.

Examples:
  style-catalog import styles.tar --storage s3://studio/styles
  style-catalog import s3://partner/bundle --any-base --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="folder, s3:// prefix or .tar file written by export")
    parser.add_argument(
        "--any-base", action="store_true", help="import even if no style of this catalog was trained on the same base"
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    versions = catalog.import_bundle(options.bundle, any_base=options.any_base)
    print_changed([(row.style_id, row.version) for row in versions], "imported", json=options.json)
