"""Set, move, remove and list aliases, such as prod or best, each a name for one version of a style.

Examples:
  style-catalog alias set van-gogh@3 prod --storage s3://studio/styles
  style-catalog alias set van-gogh@4 prod --expect 3 --storage s3://studio/styles   # fails if prod is not version 3 now
  style-catalog alias remove van-gogh@prod --storage s3://studio/styles
  style-catalog alias list van-gogh --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("set", "remove", "list"), help="what to do")
    parser.add_argument(
        "style",
        metavar="STYLE",
        nargs="?",
        help="set: ID@VERSION (ID alone: its latest); remove: ID@NAME; list: ID, optional",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="set: the alias, of lowercase letters, digits and '-'")
    parser.add_argument(
        "--expect",
        type=int,
        metavar="VERSION",
        help="fail unless the alias is this version now (0: unless there is none)",
    )


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from catalog.commands.output import check_words, print_done, print_rows

    check_words(options, {"set": ("style", "name"), "remove": ("style",), "list": ()}, optional=("style",))
    if options.what == "list":
        rows = [asdict(alias) for alias in catalog.aliases(options.style)]
        columns = ("style_id", "alias", "version", "happened_at", "author")
        print_rows(rows, "json" if options.json else "table", columns=columns, empty="no aliases")
    elif options.what == "set":
        style_id, version = catalog.set_alias(options.style, options.name, expect=options.expect)
        done = {"style_id": style_id, "alias": options.name, "version": version}
        print_done(done, f"{style_id}@{options.name} is version {version}", json=options.json)
    else:
        catalog.remove_alias(options.style, expect=options.expect)
        print_done({"removed": options.style}, f"{options.style} removed", json=options.json)
