"""Everything known of some styles."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("select", metavar="SEL", help="comma list of id, id@version, id@alias, tag:name, all")
    parser.add_argument("--lineage", action="store_true", help="what each was made from, by which run, and how again")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from catalog.commands.output import printable

    versions = catalog.resolve(options.select)
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
