"""List versions of styles, filtered, sorted and paged; a table shows the first 50 unless --limit says otherwise.

Examples:
  style-catalog list --storage s3://studio/styles
  style-catalog list --where 'structure>0.8' --tag print --sort structure:desc --limit 10 --storage s3://studio/styles
  style-catalog list --latest --columns style_id,version,notes --csv --storage s3://studio/styles
"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from catalog.commands.filtering import add_filters, add_forms, conditions, count, form_of
from catalog.errors import CatalogUsageError

if TYPE_CHECKING:
    from catalog.store import StyleCatalog

_TABLE = ("style_id", "version", "aliases", "base_name", "preset", "tags", "created_at", "checkpoint_bytes",
          "train_seconds")  # fmt: skip
_PAGE = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_filters(parser)
    add_forms(parser)
    parser.add_argument(
        "--sort",
        default="style_id,version",
        metavar="NAMES",
        help="comma list of columns and metrics, default: style_id,version; NAME:desc: largest first",
    )
    parser.add_argument("--columns", metavar="NAMES", help="comma list of columns to print")
    parser.add_argument("--limit", type=count, metavar="N", help="at most N rows")
    parser.add_argument("--offset", type=count, default=0, metavar="N", help="skip the first N rows")
    parser.add_argument("--deleted", action="store_true", help="include deleted versions")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_rows
    from catalog.view import Question

    form = form_of(options)
    where = conditions(options)
    view = catalog.view()
    usual = (*_TABLE, *(["status"] if options.deleted else [])) if form == "table" else view.columns()
    columns = [name.strip() for name in options.columns.split(",")] if options.columns else usual
    limit = options.limit if options.limit is not None or form != "table" else _PAGE
    rows = view.ask(
        Question(
            columns,
            where,
            latest=options.latest,
            deleted=options.deleted,
            sort=[_sort(name.strip()) for name in options.sort.split(",") if name.strip()],
            limit=None if limit is None else limit + (form == "table"),
            offset=options.offset,
        )
    )
    more = False

    def page() -> "Iterator[dict[str, Any]]":
        nonlocal more
        for number, row in enumerate(rows):
            if form == "table" and number == limit:
                more = True
                return
            yield row

    empty = f"no {'such ' if where else ''}styles in {catalog.storage}"
    print_rows(page(), form, columns=columns, empty=empty)
    if more:
        print(f"There are more: --offset {options.offset + (limit or 0)} goes on, --limit shows more at once.")


def _sort(name: str) -> str:
    bare, _, order = name.partition(":")
    if order not in ("", "asc", "desc"):
        raise CatalogUsageError(f"--sort {name}: NAME, NAME:asc or NAME:desc")
    return f"-{bare}" if order == "desc" else bare
