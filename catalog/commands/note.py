"""Notes on versions of styles.

note add SEL TEXT prints the note's id; note remove ID@VERSION NOTE takes one away; note list ID@VERSION.
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("add", "remove", "list"))
    parser.add_argument(
        "style", metavar="SEL", help="id (its latest), id@version, id@alias; to add also a list, tag:name"
    )
    parser.add_argument("text", metavar="TEXT|NOTE", nargs="?", help="what is to be said; to remove, the note's id")


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
