"""Compare the catalog with what is stored: checkpoints by sha256, pictures, orphans. Exits with 3 on findings."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("select", metavar="SEL", nargs="?", help="these versions alone; by default all, and orphans")
    parser.add_argument("--quick", action="store_true", help="compare sizes instead of reading every checkpoint")


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
                print(printable(f"{item.kind}: {item.style or 'orphan'}: {item.uri}: {item.message}"), flush=True)
        else:
            seen += 1
    report = {"versions": seen, "findings": [asdict(finding) for finding in findings]}
    print_done(report, f"{seen} versions looked at, {len(findings)} findings", json=options.json)
    return ExitCode.RECORDED_FAILURES if findings else ExitCode.DONE
