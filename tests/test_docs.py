"""What pages name exists: links and their headings, files, modules and what is defined in them, flags."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "benchmarks/**/*.md", "samples/**/*.md", "osasis/bases/*/*.md")
    for path in ROOT.glob(pattern) if path.name != "CHANGELOG.md"  # which names what is gone
)  # fmt: skip
_PACKAGES = "osasis|catalog|cluster|jobs|benchmarks|tests"
_FOREIGN = {"--working-dir", "--logdir", "--build-arg", "--address", "--no-deps"}
"""Flags of other programs."""


@cache
def text_of(page: Path) -> str:
    return page.read_text()


def headings(page: Path) -> set[str]:
    """Anchors, as the README's host makes them."""
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        name, _, anchor = link.partition("#")
        if "://" in name:
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            yield link


def missing_names(page: Path) -> Iterator[str]:
    """``osasis/x.py``, ``tests/golden``, ``osasis.x`` and ``python -m benchmarks.x`` that are not there."""
    text = text_of(page)
    for name in re.findall(rf"(?<![\w/.:-])((?:{_PACKAGES}|docs|samples)/[\w./-]*\w)", text):
        if not (ROOT / name).exists():
            yield name
    for module in re.findall(rf"(?:\B`|-m )((?:{_PACKAGES})(?:\.[a-z_]+)+)", text):
        path = ROOT.joinpath(*module.split("."))
        if not (path.is_dir() or path.with_suffix(".py").exists()):
            yield from [] if _defined(path.parent, path.name) else [module]


@cache
def sources() -> str:
    return "\n".join(path.read_text() for name in _PACKAGES.split("|") for path in (ROOT / name).rglob("*.py"))


def unknown_flags(page: Path) -> Iterator[str]:
    """``--kebab-case`` that is neither a field's name nor spelled so in any source."""
    for flag in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text_of(page))) - _FOREIGN):
        field = flag[2:].replace("-", "_")
        if not re.search(rf"\b{field}\b: |{flag}\b", sources()):
            yield flag


def _defined(module: Path, name: str) -> bool:
    """``osasis.density.density_distance``: the last part is something in a module or a package."""
    sources = [module.with_suffix(".py"), module / "__init__.py"]
    return any(re.search(rf"\b{name}\b", source.read_text()) for source in sources if source.exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_names_and_flags_of_a_page_exist(page: Path) -> None:
    assert [*dead_links(page)] == []
    assert [*missing_names(page)] == []
    assert [*unknown_flags(page)] == []


def test_every_page_is_in_the_index() -> None:
    index = text_of(ROOT / "docs" / "README.md")
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name not in index and page.name != "README.md"
    ] == []
