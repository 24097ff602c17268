"""The gallery as files: what is fetched, what is kept, and that text in it stays text."""

import hashlib
import json
import random
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catalog.__main__ import main
from catalog.gallery import _page
from catalog.probes import PROBE_SET, PROBE_SETS, probe_photos
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.gallery_case import make_gallery, reference, sheet, version_of
from tests.support.hostile import bomb, encoded, picture
from tests.support.styles import new_style


def files_of(page: Path) -> list[str]:
    return sorted(path.name for path in page.with_name("gallery_files").iterdir())


def test_the_probe_set_is_whole_and_never_changes() -> None:
    photos = probe_photos()
    assert list(photos) == list(PROBE_SETS[PROBE_SET])
    assert len(set(photos.values())) == len(photos) == 8
    digest = hashlib.sha256(b"".join(photos.values())).hexdigest()[:16]
    assert digest == "bc37338d64509ede", "other photographs are another set: give it another name"


def test_pictures_are_fetched_once_from_any_storage(storage: Storage, tmp_path: Path) -> None:
    versions = [version_of(storage, i, previewed=i != 2) for i in range(4)]
    page, report = make_gallery(tmp_path, versions)
    assert (report.styles, report.fetched, report.kept, report.missing) == (4, 7, 0, [])
    before = {path.name: path.stat().st_mtime_ns for path in page.with_name("gallery_files").iterdir()}
    assert len(before) == 7
    assert sheet(shade=3) in [page.with_name("gallery_files").joinpath(name).read_bytes() for name in before]

    page, report = make_gallery(tmp_path, [*versions, version_of(storage, 4)])
    assert (report.fetched, report.kept, report.removed) == (2, 7, 0)
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in page.with_name("gallery_files").iterdir()}.items()


def test_pictures_of_styles_that_left_are_removed_and_nothing_else(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "storage")
    versions = [version_of(storage, i) for i in range(3)]
    page, _ = make_gallery(tmp_path, versions)
    page.with_name("gallery_files").joinpath("mine.png").write_bytes(b"mine")
    _, report = make_gallery(tmp_path, versions[:1])
    assert report.removed == 4
    assert [name for name in files_of(page) if not name.startswith("style-0000@1-")] == ["mine.png"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no picture of a known kind"),
        (sheet()[:-60], "truncated"),
        (bomb(), "pixels"),
        (reference(), "not a preview of 8 portraits"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_reported(tmp_path: Path, content: bytes | None, reason: str) -> None:
    storage = Storage.open(tmp_path / "storage")
    if content is not None:
        storage.write_bytes("bad.png", content)
    versions = [version_of(storage, 0), version_of(storage, 1, preview_uri=storage.child_uri("bad.png"))]
    page, report = make_gallery(tmp_path, versions)
    (line,) = report.missing
    assert line.startswith("style-0001@1: ")
    assert reason in line
    assert report.fetched == len(files_of(page)) == 3


def test_heavy_pictures_are_made_smaller(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "storage")
    noise = Image.frombytes("RGB", (2400, 300), random.Random(0).randbytes(2400 * 300 * 3))
    storage.write_bytes("big.png", encoded(noise, "PNG"))
    storage.write_bytes("odd.bmp", encoded(picture(), "BMP"))
    versions = [
        version_of(storage, 0, reference_uri=storage.child_uri("big.png")),
        version_of(storage, 1, reference_uri=storage.child_uri("odd.bmp")),
    ]
    page, _ = make_gallery(tmp_path, versions)
    big, odd = sorted(page.with_name("gallery_files").glob("*.webp"))
    assert Image.open(big).size == (2048, 256)
    assert Image.open(odd).size == picture().size


class _Scripts(HTMLParser):
    """Elements of a page that run, load or lead elsewhere, and the content of its data."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.handlers: list[str] = []
        self.data = ""
        self.title = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self._inside = "data" if ("id", "data") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "data":
            self.data += data
        elif self._inside == "title":
            self.title += data


_PLAIN = _Scripts()
_PLAIN.feed(_page({}, "Styles", "here").decode())

_HOSTILE = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ["<script>alert(1)</script>", "</script>", "<!--", "-->", "]]>", "'", '"', "&lt;", "<img src=x onerror=a>",
             "</title>", "</style>", "${data}", "$title", "\u2028", "\ud800", "\0", "javascript:", "\\u003c"]
        ),
        max_size=6,
    ).map("".join),
)  # fmt: skip


@given(text=_HOSTILE, title=_HOSTILE)
@settings(max_examples=200)
def test_text_in_the_page_stays_text(text: str, title: str) -> None:
    data = {"styles": [{"notes": text, text: [text]}]}
    page = _Scripts()
    page.feed(_page(data, title, text).decode())
    assert json.loads(page.data) == data
    assert page.elements == _PLAIN.elements
    assert page.handlers == []


def test_the_page_names_nothing_outside_of_it() -> None:
    text = _page({}, "Styles", "here").decode()
    assert "://" not in text.replace("file://", "")
    assert "default-src 'none'" in text
    assert _PLAIN.elements.count("script") == 2
    assert not {"iframe", "object", "embed", "base", "form", "a"} & set(_PLAIN.elements)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage.open(tmp_path / "storage")
    storage.write_bytes("reference.png", reference())
    catalog = StyleCatalog.open(storage)
    catalog.register(new_style(storage, "monet", reference_uri=storage.child_uri("reference.png")))
    page = tmp_path / "page.html"
    assert main(["gallery", str(page), "--storage", storage.uri]) == 0
    assert "1 versions; pictures: 1 fetched" in capsys.readouterr().out
    catalog.register(new_style(storage, "hokusai", reference_uri="gone.png"))
    assert main(["gallery", str(page), "--storage", storage.uri, "--json"]) == 3
    told = capsys.readouterr()
    assert "hokusai@1" in told.err
    assert json.loads(told.out)["kept"] == 1
    assert main(["gallery", str(page), "--storage", storage.uri, "--style", "monet", "--title", "Only"]) == 0
    assert "<title>Only</title>" in page.read_text()
    assert "hokusai" not in page.read_text()
    assert main(["gallery", str(tmp_path / "page.txt"), "--storage", storage.uri]) == 2
