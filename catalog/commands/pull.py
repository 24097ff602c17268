"""Download a version's checkpoint and pictures to DIR/ID@VERSION and check them by sha256.

Examples:
  style-catalog pull van-gogh@prod . --storage s3://studio/styles
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.commands.places import place

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("style", metavar="ID@VERSION", help="or ID (its latest), or ID@ALIAS")
    parser.add_argument("folder", metavar="DIR", type=place, help="local folder")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_done

    folder = str(catalog.pull(options.style, Path(options.folder)))
    print_done({"folder": folder}, folder, json=options.json)
