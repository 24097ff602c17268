"""Write versions of styles with all their files to OUT: a folder, an s3:// prefix, or one file that ends in .tar."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select", metavar="SEL", help="comma list of id (its latest), id@version, id@alias, tag:name, all"
    )
    parser.add_argument("out", metavar="OUT", help="where nothing is yet")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    bundle = catalog.export_bundle(options.select, options.out)
    pairs = [(style.style.style_id, style.version) for style in bundle.styles]
    print_changed(pairs, "exported", json=options.json)
