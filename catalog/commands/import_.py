"""Register the styles of a bundle here, as the next versions; those that are here already are found."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="what export wrote: folder, s3:// prefix or .tar")
    parser.add_argument("--any-base", action="store_true", help="even if no style here was trained on its base")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    versions = catalog.import_bundle(options.bundle, any_base=options.any_base)
    print_changed([(row.style_id, row.version) for row in versions], "imported", json=options.json)
