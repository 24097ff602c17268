"""Command line of the catalog: ``python -m catalog COMMAND … --storage URI [--json]``; also ``style-catalog``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Any

from catalog.commands.places import place
from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.selector import SelectorError
from cluster.commandline.exit_code import ExitCode
from cluster.commandline.terminal import lenient_output
from cluster.storage import Storage, StorageError

COMMANDS = {
    "list": "list versions of styles, filtered and sorted",
    "show": "show everything recorded about styles",
    "search": "find the styles nearest to a text or a picture",
    "sql": "run one SELECT over the current catalog",
    "alias": "set, move, remove and list aliases such as prod",
    "tag": "add and remove tags",
    "note": "add, remove and list notes",
    "history": "list what changed about a style, when and by whom",
    "delete": "hide versions; their files stay until gc",
    "restore": "undo delete",
    "gc": "free the files of versions deleted long ago",
    "optimize": "compact the tables and remove files no longer in use",
    "verify": "check the tables and every checkpoint against storage",
    "pull": "download a version and check it",
    "export": "write styles with all their files to a bundle",
    "import": "register the styles of a bundle",
    "gallery": "write a page for browsing styles",
    "picture": "copy a stylized picture out of an output or its shards",
    "lineage": "show what a picture was made from, and the command that makes it again",
}
"""Each is a module of :mod:`catalog.commands`."""

_USAGE = "The catalog of trained styles below a storage. style-catalog COMMAND --help shows its flags and examples."


def main(args: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 storage failed, 2 bad usage or no such style, 3 done, with findings that were printed."""
    lenient_output()
    given = list(sys.argv[1:] if args is None else args)
    name = _command(given)
    module = import_module(f"catalog.commands.{name}{'_' if iskeyword(name) else ''}")
    description, _, examples = (module.__doc__ or "").partition("\n\nExamples:\n")
    parser = _Parser(prog=f"style-catalog {name}", description=description, epilog=f"examples:\n{examples}")
    parser.add_argument(
        "--storage", required=True, type=place, metavar="URI", help="path or s3:// URI that holds the catalog"
    )
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(given[1:])
    from catalog.store import StyleCatalog

    try:
        return int(module.run(StyleCatalog.open(Storage.open(options.storage)), options) or ExitCode.DONE)
    except (SelectorError, UnknownStyle, CatalogUsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_USAGE
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED


class _Parser(argparse.ArgumentParser):
    """Its help lists what is required before what is optional."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self._required = self.add_argument_group("arguments")
        self._optional = self.add_argument_group("options")
        self.add_argument("-h", "--help", action="help", help="show this help")

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # type: ignore[override]
        required = not names[0].startswith("-") or settings.get("required")
        return (self._required if required else self._optional).add_argument(*names, **settings)


def _command(given: list[str]) -> str:
    """The first word; prints help or refuses it as argparse does."""
    parser = argparse.ArgumentParser(
        prog="style-catalog",
        description=_USAGE,
        epilog="\n".join(f"  {name:10} {what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
    return str(parser.parse_args(given[:1]).command)


if __name__ == "__main__":
    sys.exit(main())
