"""Write a page for browsing styles, OUT.html, with its pictures in OUT_files; it works from disk, without a server.

Examples:
  style-catalog gallery styles.html --storage s3://studio/styles
  style-catalog gallery s3://studio/pages/prints.html --tag print --latest --storage s3://studio/styles
"""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from catalog.commands.filtering import add_filters, conditions
from catalog.commands.places import place

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", type=place, metavar="OUT.html", help="path or s3:// URI of the page; replaced if it exists"
    )
    add_filters(parser)
    parser.add_argument("--title", default="Styles", help="heading of the page (default: Styles)")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> int:
    from catalog.errors import CatalogUsageError
    from catalog.gallery import write_gallery
    from cluster.commandline.exit_code import ExitCode
    from cluster.storage import Storage

    page = Storage.open(options.out)
    if not page.uri.endswith(".html"):
        raise CatalogUsageError(f"{options.out}: a gallery's name ends in .html")
    versions = catalog.list(where=conditions(options), latest=options.latest)
    report = write_gallery(page, versions, title=options.title, source=catalog.storage.uri)
    for line in report.missing:
        print(f"no picture: {line}", file=sys.stderr)
    if options.json:
        print(json.dumps({"page": page.uri} | dataclasses.asdict(report), indent=2))
    else:
        print(
            f"{page.uri}: {report.styles} versions; pictures: {report.fetched} fetched, {report.kept} there already, "
            f"{report.removed} removed, {len(report.missing)} missing"
        )
    return ExitCode.RECORDED_FAILURES if report.missing else ExitCode.DONE
