"""Add, remove and list notes on versions of styles.

Examples:
  style-catalog note add van-gogh@3 "too dark for portraits" --storage s3://studio/styles
  style-catalog note list van-gogh@3 --storage s3://studio/styles
  style-catalog note remove van-gogh@3 4f1c9a20 --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("add", "remove", "list"), help="what to do")
    parser.add_argument(
        "style", metavar="SEL", help="ID (its latest version), ID@VERSION, ID@ALIAS; add: a comma list or tag:TAG too"
    )
    parser.add_argument("text", metavar="TEXT|NOTE", nargs="?", help="add: the text; remove: the note's id")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from catalog.commands.output import check_words, print_done, print_rows

    check_words(options, {"add": ("text",), "remove": ("text",), "list": ()})
    if options.what == "add":
        note_id = catalog.add_note(options.style, options.text)
        print_done({"note_id": note_id}, note_id, json=options.json)
    elif options.what == "remove":
        catalog.remove_note(options.style, options.text)
        print_done({"removed": options.text}, f"note {options.text} removed", json=options.json)
    else:
        rows = [asdict(note) for note in catalog.notes(options.style)]
        columns = ("note_id", "happened_at", "author", "text")
        print_rows(rows, "json" if options.json else "table", columns=columns, empty="no notes")
