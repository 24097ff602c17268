"""What ruff, mypy and import-linter do not check: ``python .ci/guards.py`` names each place, and exits with 1 if any.

By syntax trees and text alone: nothing is imported.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("osasis", "catalog", "cluster", "jobs")
LONGEST_FUNCTION = 60
"""Lines, signature and docstring included, tests too."""
PHRASES = (
    "was said of", "is said of", "be said of", "of which there is no end", "bear the tag", "bears the tag",
    "of whatever is drawn", "is no more\"", "for want of", "hears of", "brought about", "tagged anew",
)  # fmt: skip
"""English that nobody in this field writes."""

NAMED_BY_MAP_BATCHES = {
    "batch_size", "compute", "batch_format", "zero_copy_batch", "fn_args", "fn_kwargs", "fn_constructor_args",
    "fn_constructor_kwargs", "num_cpus", "num_gpus", "memory", "concurrency", "udf_modifying_row_count",
    "label_selector", "fallback_strategy", "max_calls", "resources", "accelerator_type", "runtime_env",
}  # fmt: skip

Tree = ast.Module


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return sorted(path for name in set(listed.splitlines()) if (path := ROOT / name).is_file())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: Tree, name: str, is_package: bool, modules: set[str]) -> set[str]:
    """The project's modules that one names, be it at its top, in a function or for type checking.

    An import in a function is an edge like any other: in a cycle it is what hides the cycle, elsewhere it does no harm.
    That importing ``a.b`` runs ``a/__init__`` is not counted.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: None if is_package else -1]
            above = above[: len(above) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            submodules = {f"{source}.{alias.name}" for alias in node.names} & modules
            found |= submodules or {source}
    return (found & modules) - {name}


def import_cycles(trees: dict[Path, Tree]) -> Iterator[str]:
    ours = {module_name(path): path for path in trees if path.relative_to(ROOT).parts[0] in PACKAGES}
    graph = {name: imports(trees[path], name, path.stem == "__init__", set(ours)) for name, path in ours.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return
        except CycleError as error:
            cycle: list[str] = error.args[1][::-1]  # each imports the next
            yield f"import cycle: {' -> '.join(cycle)}"
            graph[cycle[0]].discard(cycle[1])


def test_imports(trees: dict[Path, Tree]) -> Iterator[str]:
    """What tests share lies in tests/support: no test module imports another, not even in a script that it runs."""
    tests = {module_name(path) for path in trees if path.name.startswith("test_")}
    for path, tree in trees.items():
        names = imports(tree, module_name(path), False, tests)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= {name for name in tests if f"from {name} import" in node.value}
        yield from (f"{path.relative_to(ROOT)}: imports the test module {name}" for name in sorted(names))


def long_functions(trees: dict[Path, Tree]) -> Iterator[str]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines"


def ray_remote_args(trees: dict[Path, Tree]) -> Iterator[str]:
    """What Ray Data does not name it takes as ``**ray_remote_args``, which goes in Ray 2.64."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "map_batches":
                unnamed = {keyword.arg or "**" for keyword in node.keywords} - NAMED_BY_MAP_BATCHES
                yield from (
                    f"{path.relative_to(ROOT)}:{node.lineno}: ray_remote_args: {arg}" for arg in sorted(unnamed)
                )


def quaint_phrases() -> Iterator[str]:
    """In messages, help texts, docstrings, comments and pages, also across the ends of lines."""
    for path in tracked("*.py", "*.md", "*.js", "*.html"):
        if path == Path(__file__).resolve() or "tests" in path.relative_to(ROOT).parts:
            continue
        text = " ".join(path.read_text().replace("#", " ").lower().split())
        yield from (f'{path.relative_to(ROOT)}: "{phrase}"' for phrase in PHRASES if phrase in text)


def main() -> int:
    trees = {path: ast.parse(path.read_text(), str(path)) for path in tracked("*.py")}
    found = [
        *import_cycles(trees), *test_imports(trees), *ray_remote_args(trees), *long_functions(trees), *quaint_phrases(),
    ]  # fmt: skip
    print("\n".join(found) or "guards: nothing found")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
