"""Show what a stylized picture was made from: photograph, style, base, settings, run; and how to make it again.

Examples:
  style-catalog lineage s3://studio/out/images/van-gogh@3/a.jpg.png --storage s3://studio/styles
  style-catalog lineage out/images/van-gogh@3/a.jpg.png --command --output again --storage s3://studio/styles
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.store import StyleCatalog

_NEARLY = (
    "note: made in batches, so expect the same picture, and the same bytes only up to rounding (--batch-size 1 in both)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", metavar="URI", help="the picture: an output_uri of a manifest")
    parser.add_argument("--command", action="store_true", help="print only the command that makes the picture again")
    parser.add_argument(
        "--output", metavar="URI", default="again", help="output folder in that command (default: again)"
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.errors import CatalogUsageError
    from catalog.lineage import picture_lineage

    lineage = picture_lineage(catalog, options.picture, options.output)
    if not options.command:
        print_lineage(lineage, as_json=options.json)
    elif lineage["command"] is None:
        raise CatalogUsageError(
            f"the run that made it has no record below {catalog.storage}: give the --storage that it was given"
        )
    else:
        print(lineage["command"])
        if not lineage["same_bytes"]:
            print(_NEARLY, file=sys.stderr)


def print_lineage(lineage: dict[str, Any], *, as_json: bool) -> None:
    """As JSON, or a line for every value."""
    if as_json:
        print(json.dumps(lineage, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for name, value in _lines(lineage):
        table.add_row(f"[bold]{name}[/bold]", Text(value))
    Console(soft_wrap=True).print(table)


def _lines(value: dict[str, Any], prefix: str = "") -> "list[tuple[str, str]]":
    lines = []
    for name, item in value.items():
        if isinstance(item, dict):
            lines += _lines(item, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", item if isinstance(item, str) else json.dumps(item)))
    return lines
