"""Keep many small commits quick to read: compacts both tables, tidies their logs, removes files that nobody reads now.

Safe while others read and write.
"""

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING

from catalog.commands.gc import age

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--retain", type=age, default=timedelta(days=7), metavar="AGE",
                        help="keep files that were of use so lately (7d); an hour at least")  # fmt: skip


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from catalog.commands.output import print_rows

    rows = [asdict(done) for done in catalog.optimize(options.retain)]
    columns = ("table", "files_before", "files_after", "removed")
    print_rows(rows, "json" if options.json else "table", columns=columns, empty="no tables yet")
