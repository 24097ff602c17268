"""Listing a large prefix of S3: the prefixes below it at once, in an order that only depends on what is there."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from cluster.storage.interleave import interleaved

AT_ONCE = 16
"""Prefixes that are listed at once."""

_LEVEL_PAGES = 10
"""Pages of a level; a wider one is listed flat."""
_LEVELS = 3
_KEYS_OF_PREFIX = 50
"""Where a prefix holds fewer keys than this, asking for each costs more than it saves."""

Page = dict[str, Any]
Pages = Callable[..., Iterable[Page]]
"""``list_objects_v2``, page by page."""


def listed(pages: Pages, prefix: str) -> Iterator[dict[str, Any]]:
    """All objects whose keys begin with ``prefix``, each once; a small prefix takes one request."""
    flat = iter(pages(Prefix=prefix))
    first: Page = next(flat, {})
    found = first.get("Contents", [])
    yield from found
    if not first.get("IsTruncated"):
        return
    below = {key.partition("/")[0] for item in found if "/" in (key := item["Key"].removeprefix(prefix))}
    objects, parts = ([], [prefix]) if len(below) * _KEYS_OF_PREFIX > len(found) else _split(pages, prefix)
    if parts == [prefix]:
        rest = _contents(flat)
    else:
        flat_parts = (_contents(pages(Prefix=part)) for part in parts)
        rest = chain([objects], interleaved(flat_parts, AT_ONCE))
    known = {item["Key"] for item in found}
    for page in rest:
        yield from (item for item in page if item["Key"] not in known)


def _contents(pages: Iterable[Page]) -> Iterator[list[dict[str, Any]]]:
    return (page.get("Contents", []) for page in pages)


def _split(pages: Pages, prefix: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Objects, and prefixes that hold all others."""
    objects: list[dict[str, Any]] = []
    parts = [prefix]
    for _ in range(_LEVELS):
        if len(parts) >= AT_ONCE:
            break
        whole: list[str] = []
        for part in parts:
            here, below = _level(pages, part)
            objects += here
            whole += below
        if whole == parts:
            break
        parts = whole
    return objects, parts


def _level(pages: Pages, prefix: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Objects right below a prefix, and the prefixes there; the prefix itself where those are none or too many."""
    objects: list[dict[str, Any]] = []
    below: list[str] = []
    for number, page in enumerate(pages(Prefix=prefix, Delimiter="/")):
        objects += page.get("Contents", [])
        below += [found["Prefix"] for found in page.get("CommonPrefixes", ())]
        if number + 1 == _LEVEL_PAGES and page.get("IsTruncated"):
            return [], [prefix]
    return (objects, below) if below else ([], [prefix])
