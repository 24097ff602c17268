"""Compact both tables, tidy their logs and remove files no longer in use; safe while others read and write.

Examples:
  style-catalog optimize --storage s3://studio/styles
  style-catalog optimize --retain 2h --storage s3://studio/styles
"""

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING

from catalog.commands.gc import age

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--retain", type=age, default=timedelta(days=7), metavar="AGE",
                        help="keep files that were in use within this time (default: 7d; at least 1h)")  # fmt: skip


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from catalog.commands.output import print_rows

    rows = [asdict(done) for done in catalog.optimize(options.retain)]
    columns = ("table", "files_before", "files_after", "removed")
    print_rows(rows, "json" if options.json else "table", columns=columns, empty="no tables yet")
