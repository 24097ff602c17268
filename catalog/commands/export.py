"""Write versions of styles with all their files to a bundle: a folder, an s3:// prefix, or one .tar file.

Examples:
  style-catalog export van-gogh@prod,tag:print /mnt/usb/styles.tar --storage s3://studio/styles
  style-catalog import /mnt/usb/styles.tar --storage runs/other
"""

import argparse
from typing import TYPE_CHECKING

from catalog.commands.places import place

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select", metavar="SEL", help="comma list of ID (its latest version), ID@VERSION, ID@ALIAS, tag:TAG, all"
    )
    parser.add_argument(
        "out", type=place, metavar="OUT", help="path or s3:// URI where nothing exists yet; .tar: one file"
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_changed

    bundle = catalog.export_bundle(options.select, options.out)
    pairs = [(style.style.style_id, style.version) for style in bundle.styles]
    print_changed(pairs, "exported", json=options.json)
