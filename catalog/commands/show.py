"""Show everything recorded about styles: those selected, those that pass the filters, or both.

Examples:
  style-catalog show van-gogh@prod --storage s3://studio/styles
  style-catalog show --where 'structure>0.8' --latest --json --storage s3://studio/styles
  style-catalog show van-gogh@3 --lineage --storage s3://studio/styles
"""

import argparse
import json
from typing import TYPE_CHECKING

from catalog.commands.filtering import add_filters, conditions
from catalog.errors import CatalogUsageError

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select",
        metavar="SEL",
        nargs="?",
        help="comma list of ID (its latest version), ID@VERSION, ID@ALIAS, tag:TAG, all",
    )
    add_filters(parser)
    parser.add_argument(
        "--lineage",
        action="store_true",
        help="show what each was made from, by which run, and the command that trains it again",
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from catalog.commands.output import printable

    where = conditions(options)
    if options.select is None and not where and not options.latest:
        raise CatalogUsageError("say which styles: SEL, or filters such as --where 'structure>0.8'")
    versions = catalog.resolve(options.select, where=where, latest=options.latest)
    if options.lineage:
        from catalog.commands.lineage import print_lineage
        from catalog.lineage import style_lineage

        print_lineage({str(version): style_lineage(catalog, version) for version in versions}, as_json=options.json)
        return
    if options.json:
        print(json.dumps([version.model_dump(mode="json") for version in versions], indent=2))
        return
    console = Console()
    for row in versions:
        table = Table(title=str(row), show_header=False)
        details = row.model_dump(mode="json")
        embedding = details.pop("clip_embedding")
        details["clip_embedding"] = f"{len(embedding)} numbers" if embedding else None
        for name, value in details.items():
            table.add_row(name, Text(printable(json.dumps(value) if isinstance(value, (dict, list)) else str(value))))
        console.print(table)
