"""Each kind of change to a catalog: prepared, made, and checked to have been made once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from catalog.store import StyleCatalog
from tests.support.styles import trained_style


@dataclass(frozen=True)
class Change:
    """``prepare`` makes the ``number``-th chance for a change, ``make`` makes it, ``check``: it was made once."""

    prepare: Callable[[StyleCatalog, int], object]
    make: Callable[[StyleCatalog, int], object]
    check: Callable[[StyleCatalog, int], bool]


def _kinds(catalog: StyleCatalog, style_id: str) -> Counter[str]:
    return Counter(event["kind"] for event in catalog.history(style_id))


def _add(catalog: StyleCatalog, number: int) -> None:
    catalog.register(trained_style(catalog.storage, f"style-{number}", f"{number}".encode()))


def _status(catalog: StyleCatalog, number: int) -> list[str]:
    return [row.status for row in catalog.list(deleted=True) if row.style_id == f"style-{number}"]


def _add_and_delete(catalog: StyleCatalog, number: int) -> None:
    _add(catalog, number)
    catalog.delete(f"style-{number}")


CHANGES = {
    "register": Change(
        lambda catalog, number: trained_style(catalog.storage, f"style-{number}", f"{number}".encode()),
        lambda catalog, number: _add(catalog, number),
        lambda catalog, number: _status(catalog, number) == ["ready"],
    ),
    "alias": Change(
        _add,
        lambda catalog, number: catalog.set_alias(f"style-{number}", "prod"),
        lambda catalog, number: (
            _kinds(catalog, f"style-{number}") == {"alias-set": 1} and catalog.show(f"style-{number}@prod").version == 1
        ),
    ),
    "delete": Change(
        _add,
        lambda catalog, number: catalog.delete(f"style-{number}") if _status(catalog, number) == ["ready"] else None,
        lambda catalog, number: (
            _kinds(catalog, f"style-{number}") == {"deleted": 1} and _status(catalog, number) == ["deleted"]
        ),
    ),
    "gc": Change(
        _add_and_delete,
        lambda catalog, number: catalog.gc(timedelta(0)),
        lambda catalog, number: (
            _kinds(catalog, f"style-{number}") == {"deleted": 1, "purging": 1, "purged": 1}
            and not catalog.storage.list_files(f"checkpoints/style-{number}")
        ),
    ),
    "optimize": Change(
        _add,
        lambda catalog, number: catalog.optimize(timedelta(days=7)),
        lambda catalog, number: _status(catalog, number) == ["ready"],
    ),
}
