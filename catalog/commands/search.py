"""Find the styles nearest to a text or a picture, among those that pass the filters.

Compares CLIP embeddings of the styles' references, so it loads the CLIP of their base; no other command needs torch.

Examples:
  style-catalog search "warm oil portrait, thick strokes" --storage s3://studio/styles
  style-catalog search --like photo.jpg --tag print --limit 3 --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

from catalog.commands.filtering import add_filters, add_forms, conditions, count, form_of

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what to search for (this or --like)")
    parser.add_argument("--like", metavar="FILE", help="search by a picture: path or s3:// URI")
    parser.add_argument(
        "--clip-from", metavar="BASE", help="path or s3:// URI of the styles' base, if it is not bundled"
    )
    parser.add_argument("--limit", type=count, default=10, metavar="N", help="at most N rows (default: 10)")
    add_filters(parser)
    add_forms(parser)


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    import sys

    from catalog.commands.output import print_rows

    found = catalog.search(
        options.text,
        like=options.like,
        clip_from=options.clip_from,
        where=conditions(options),
        latest=options.latest,
        limit=options.limit,
    )
    form = form_of(options)
    brief = ["similarity", "style_id", "version", "aliases", "tags", "created_at"]
    columns = brief if form == "table" else [*found.rows[0]] if found.rows else brief
    print_rows(found.rows, form, columns=columns, empty="no such styles")
    print(f"Embeddings by CLIP {found.clip_encoder} of base {found.base_name}.", file=sys.stderr)
