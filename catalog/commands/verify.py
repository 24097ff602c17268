"""Check the tables, every checkpoint (by sha256) and picture against storage; list unregistered files.

Each finding says how to mend it. Exit code 3 if there are findings.

Examples:
  style-catalog verify --storage s3://studio/styles
  style-catalog verify van-gogh,tag:print --quick --storage s3://studio/styles
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "select", metavar="SEL", nargs="?", help="check these versions only (default: all, and unregistered files)"
    )
    parser.add_argument("--quick", action="store_true", help="compare sizes only, without reading every checkpoint")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from catalog.commands.output import print_done, printable
    from catalog.verify import Finding
    from cluster.commandline.exit_code import ExitCode

    findings: list[Finding] = []
    seen = 0
    for item in catalog.verify(options.select, quick=options.quick):
        if isinstance(item, Finding):
            findings.append(item)
            if not options.json:
                print(printable(f"{item.kind}: {item.style or 'no style'}: {item.uri}: {item.message}"), flush=True)
        else:
            seen += 1
    report = {"versions": seen, "findings": [asdict(finding) for finding in findings]}
    print_done(report, f"{seen} versions looked at, {len(findings)} findings", json=options.json)
    return ExitCode.RECORDED_FAILURES if findings else ExitCode.DONE
