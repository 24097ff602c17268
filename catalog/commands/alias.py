"""Names such as prod or best for one version of a style.

alias set ID@VERSION NAME [--expect 2] points ID@NAME there, if it points to 2 now (0: to nothing);
alias remove ID@NAME; alias list [ID].
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("set", "remove", "list"))
    parser.add_argument(
        "style", metavar="STYLE", nargs="?", help="ID@VERSION to set (ID: its latest), ID@NAME to remove"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the alias to set: small letters, digits and '-'")
    parser.add_argument("--expect", type=int, metavar="VERSION", help="where it must point now; 0: nowhere")


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
