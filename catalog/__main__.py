"""Command line of the catalog: ``python -m catalog COMMAND … --storage URI [--json]``; also ``style-catalog``."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.selector import SelectorError
from cluster.commandline.exit_code import ExitCode
from cluster.storage import Storage, StorageError

COMMANDS = {
    "list": "versions of styles, filtered and sorted",
    "show": "everything known of some styles",
    "search": "styles nearest to words or a picture",
    "sql": "one SELECT over the current catalog",
    "alias": "names such as prod for one version, moved as a whole",
    "tag": "add and remove tags",
    "note": "add and remove notes",
    "history": "events of a style, and who made them",
    "delete": "hide versions",
    "restore": "show deleted versions again",
    "gc": "free the files of versions deleted long ago",
    "optimize": "keep many small commits quick to read",
    "verify": "compare the catalog with what is stored",
    "pull": "download a version and check it",
    "export": "write styles with all their files to a bundle",
    "import": "register the styles of a bundle",
    "gallery": "a page for browsing styles",
    "lineage": "where a picture comes from, and how to make it again",
}
"""Each is a module of :mod:`catalog.commands`."""

_USAGE = "Styles that were trained, and where they are. style-catalog COMMAND --help says more."


def main(args: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 storage failed, 2 bad usage or no such style, 3 done, with findings that were printed."""
    given = list(sys.argv[1:] if args is None else args)
    name = _command(given)
    module = import_module(f"catalog.commands.{name}{'_' if iskeyword(name) else ''}")
    parser = argparse.ArgumentParser(prog=f"style-catalog {name}", description=module.__doc__)
    parser.add_argument("--storage", required=True, metavar="URI", help="path or s3:// URI that holds the catalog")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    module.add_arguments(parser)
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
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE


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
