"""Run one SELECT over the current catalog, in DuckDB's SQL.

Tables: styles (those not deleted), all_styles, aliases, notes, events. Metrics are a map: metrics['structure']. With
--output also pictures, the rows of its manifest that count (the newest of each input and style), and all_pictures.

Examples:
  style-catalog sql "select base_name, count(*) n from styles group by all" --storage s3://studio/styles
  style-catalog sql "select style_id, version from styles where metrics['structure'] > 0.8" --csv --storage s3://studio/styles
  style-catalog sql "select status, count(*) n from pictures group by all" --output s3://studio/out --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

from catalog.commands.filtering import add_forms, count, form_of

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="SELECT", help="the query")
    parser.add_argument("--output", metavar="URI", help="an output of stylize, whose manifest is asked too")
    parser.add_argument("--limit", type=count, default=1000, metavar="N", help="at most N rows (default: 1000)")
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="N", help="stop the query after N seconds (default: 60)"
    )
    add_forms(parser)


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    import sys

    from catalog.commands.output import print_rows
    from cluster.storage import Storage

    output = Storage.open(options.output) if options.output else None
    answer = catalog.sql(options.query, most_rows=options.limit, seconds=options.seconds, output=output)
    print_rows(answer.rows, form_of(options), columns=answer.columns, empty="no rows")
    if answer.more:
        print(f"only the first {options.limit} rows; --limit gives more", file=sys.stderr)
