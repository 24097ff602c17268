"""Command line of the catalog: ``python -m catalog list|show --storage URI [--json]``; also ``style-catalog``."""

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from catalog.selector import SelectorError
from catalog.store import StyleCatalog, UnknownStyle, Versions
from cluster.storage import Storage, StorageError


def main(args: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 storage failed, 2 bad usage or no such style."""
    options = _parser().parse_args(args)
    try:
        catalog = StyleCatalog.open(Storage.open(options.storage))
        versions = catalog.list() if options.command == "list" else catalog.resolve(options.select)
    except (SelectorError, UnknownStyle) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([version.model_dump(mode="json") for version in versions], indent=2))
    elif options.command == "list":
        _print_list(versions, options.storage)
    else:
        _print_details(versions)
    return 0


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--storage", required=True, metavar="URI", help="path or s3:// URI that holds the catalog")
    shared.add_argument("--json", action="store_true", help="print JSON for programs")
    parser = argparse.ArgumentParser(prog="style-catalog", description="Styles that were trained, and where they are.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[shared], help="every version of every style")
    show = commands.add_parser("show", parents=[shared], help="everything known of some styles")
    show.add_argument("select", metavar="SEL", help="comma list of id, id@version, tag:name, all")
    return parser


def _print_list(versions: Versions, uri: str) -> None:
    if not versions:
        print(f"no styles in {uri}")
        return
    table = Table("style", "version", "base", "preset", "tags", "created (UTC)", "MB", "trained in")
    for row in versions:
        table.add_row(
            row.style_id,
            str(row.version),
            row.base_name,
            row.preset,
            ", ".join(row.tags),
            f"{row.created_at:%Y-%m-%d %H:%M}",
            f"{row.checkpoint_bytes / 1e6:.1f}",
            f"{row.train_seconds:.0f} s",
        )
    Console().print(table)


def _print_details(versions: Versions) -> None:
    console = Console()
    for row in versions:
        table = Table(title=str(row), show_header=False)
        details = row.model_dump(mode="json")
        embedding = details.pop("clip_embedding")
        details["clip_embedding"] = f"{len(embedding)} numbers" if embedding else None
        for name, value in details.items():
            table.add_row(name, json.dumps(value) if isinstance(value, (dict, list)) else str(value))
        console.print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main())
