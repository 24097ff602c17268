"""Every version of every style."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own yet."""


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    versions = catalog.list()
    if options.json:
        print(json.dumps([version.model_dump(mode="json") for version in versions], indent=2))
        return
    if not versions:
        print(f"no styles in {catalog.storage}")
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
    Console().print(table, markup=False)
