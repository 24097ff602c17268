"""Free the files of versions deleted long ago, and of trainings that were never registered.

Rows stay, marked as purged. Unregistered files younger than a day are always kept: they may be about to be registered.

Examples:
  style-catalog gc --older-than 30d --dry-run --storage s3://studio/styles
  style-catalog gc --older-than 30d --storage s3://studio/styles
"""

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING

from cluster.commandline.durations import parse_duration

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def age(text: str) -> timedelta:
    """``30d``, ``12h``, ``5m``, ``0s``; for argparse."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=age,
        required=True,
        metavar="AGE",
        help="free what was deleted longer ago than this: 30d, 12h, 5m, 0s",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be freed, change nothing")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_done

    report = catalog.gc(options.older_than, dry_run=options.dry_run)
    would = "would free" if options.dry_run else "freed"
    lines = [f"{would} the files of {name}" for name in report.versions]
    lines += [f"{would} the orphan {name}" for name in report.orphans]
    lines += [f"kept, because it is outside the storage: {uri}" for uri in report.elsewhere]
    lines.append(
        f"{would} {report.files} files, {report.freed_bytes:,} bytes; "
        f"checkpoints: {report.bytes_before:,} bytes before, {report.bytes_after:,} after"
    )
    print_done(report.as_dict(), "\n".join(lines), json=options.json)
