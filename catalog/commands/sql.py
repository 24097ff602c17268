"""Ask the catalog by one SELECT, in DuckDB's SQL.

Tables: styles (those not deleted), all_styles, aliases, notes, events. Metrics are a map: metrics['structure'].
"""

import argparse
from typing import TYPE_CHECKING

from catalog.commands.filtering import add_forms, count, form_of

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "query", metavar="SELECT", help='such as "select base_name, count(*) n from styles group by all"'
    )
    parser.add_argument("--limit", type=count, default=1000, metavar="N", help="at most N rows (1000)")
    parser.add_argument("--seconds", type=float, default=60, help="stop the query after so long (60)")
    add_forms(parser)


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    import sys

    from catalog.commands.output import print_rows

    answer = catalog.sql(options.query, most_rows=options.limit, seconds=options.seconds)
    print_rows(answer.rows, form_of(options), columns=answer.columns, empty="no rows")
    if answer.more:
        print(f"only the first {options.limit} rows; --limit gives more", file=sys.stderr)
