"""The flags of every job, found by its console script."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pydantic.fields import FieldInfo

from cluster.commandline.cli import JobFlags

ROOT = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = {
    name: target
    for name, target in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
    if name != "style-catalog"
}


def flags_of(module: ModuleType) -> type[JobFlags]:
    (found,) = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, JobFlags) and item.examples
    ]
    return found


def every_flag(model: type, prefix: str = "--") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():  # type: ignore[attr-defined]
        kind = info.annotation
        if hasattr(kind, "model_fields"):
            yield from every_flag(kind, f"{prefix}{name.replace('_', '-')}.")
        else:
            yield f"{prefix}{name.replace('_', '-')}", info
