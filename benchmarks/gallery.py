"""The gallery page at size, in a headless Chromium from disk: ``python benchmarks/gallery.py --styles 100,1000``.

Milliseconds until the page can be used, and from an act to the next painted frame, beside those of the smallest gallery
of the same run.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page
from pydantic import Field
from rich.console import Console
from rich.table import Table

from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, Problem, parse_flags, run_job
from cluster.storage import Storage
from tests.support.browser import CHROMIUM, WITHOUT_BROWSER, browser, opened
from tests.support.gallery_case import make_gallery, version_of

# An act, and then two frames: the second begins when the first is painted.
_ACT = """async act => {
    const start = performance.now();
    new Function(act)();
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - start;
}"""
_ACTS = {
    "type a search": "query.value = 'style-0042'; query.dispatchEvent(new Event('input'))",
    "clear it": "query.value = ''; query.dispatchEvent(new Event('input'))",
    "sort by a metric": "sort.value = 'structure:high'; sort.dispatchEvent(new Event('input'))",
    "another portrait": "document.querySelectorAll('#probes button')[5].click()",
    "open a style": "document.querySelector('.card').click()",
}
_ELEMENTS = "const query = document.getElementById('query'), sort = document.getElementById('sort'); "


class GalleryBenchmarkFlags(JobFlags):
    """Measures the gallery page in a browser."""

    styles: tuple[int, ...] = Field((100, 1000, 5000), description="Sizes of galleries, the smallest first.")


def main() -> ExitCode:
    flags = parse_flags(GalleryBenchmarkFlags)
    if CHROMIUM is None:
        raise ConfigError(Problem("this machine", WITHOUT_BROWSER))
    columns = []
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        for styles in flags.styles:
            columns.append(dict(_measured(chromium, Path(folder) / str(styles), styles)))
    table = Table("", *(f"{styles:,} styles" for styles in flags.styles))
    for name in columns[0]:
        first = columns[0][name]
        table.add_row(name, *(f"{column[name]:,.0f} ({column[name] / first:.1f}×)" for column in columns))
    Console().print(table)
    return ExitCode.DONE


def _measured(chromium: Browser, folder: Path, styles: int) -> Iterator[tuple[str, float]]:
    storage = Storage.open(folder / "storage")
    versions = [version_of(storage, i) for i in range(styles)]
    start = time.perf_counter()
    path, _ = make_gallery(folder, versions)
    yield "written, ms", 1000 * (time.perf_counter() - start)
    yield "page, kB", path.stat().st_size / 1000
    with opened(chromium, path) as page:
        yield "loaded, ms", _loaded(page)
        for name, act in _ACTS.items():
            yield f"{name}, ms", page.evaluate(_ACT, _ELEMENTS + act)


def _loaded(page: Page) -> float:
    return float(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))


if __name__ == "__main__":
    run_job(main)
