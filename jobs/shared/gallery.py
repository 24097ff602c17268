"""Photographs beside their stylizations, as one picture and one page; drawn from catalog and manifest."""

import base64
import html
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageOps

from catalog.pictures import read_picture
from catalog.schema import StyleVersion
from cluster.storage import Storage
from osasis.image import FitTransform, decode_image, encode_image

SCORES = ("structure", "style")
"""Columns of the manifest that are shown and sorted by."""

TILE = 256
"""Side of a picture in the gallery, pixels."""
_GAP = 4

_STYLE = f"""
body{{font:14px sans-serif;margin:1em}}
td,th{{padding:2px;font-weight:normal}}
thead{{position:sticky;top:0;z-index:1;background:#fff}}
thead img{{width:96px}}
td>img,.pair{{width:{TILE}px;max-width:30vw}}
.pair{{position:relative}}
.pair img{{display:block;width:100%}}
.pair .photo{{position:absolute;top:0;left:0;clip-path:inset(0 calc(100% - var(--split,0%)) 0 0)}}
.pair::after{{content:"";position:absolute;top:0;bottom:0;left:var(--split,0%);border-left:1px solid #fff}}
.pair input{{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize}}
.pair:focus-within{{outline:2px solid #07f}}
"""

_SCRIPT = """
for (const pair of document.querySelectorAll('.pair')) {
    pair.querySelector('.photo').src = pair.closest('tr').querySelector('img').src;
    const input = pair.querySelector('input');
    const show = () => pair.style.setProperty('--split', input.value + '%');
    input.addEventListener('input', show);
    show();
}

const sort = document.getElementById('sort'), body = document.querySelector('tbody'), rows = [...body.rows];
if (sort) sort.addEventListener('change', () => {
    const [score, sign] = sort.value.split(' ');
    const mean = row => {
        const found = [...row.cells].map(cell => cell.dataset[score]).filter(value => value !== undefined);
        return found.length ? sign * found.reduce((sum, value) => sum + Number(value), 0) / found.length : Infinity;
    };
    const order = new Map(rows.map((row, i) => [row, score ? mean(row) : i]));
    body.append(...[...rows].sort((a, b) => order.get(a) - order.get(b) || 0));
});
"""


@dataclass(frozen=True)
class Column:
    """One style and its results, by input URI."""

    style: StyleVersion
    reference: Image.Image
    results: dict[str, Image.Image]
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    """``structure``, ``style`` and ``flags`` of the manifest's row, by input URI."""

    def cell(self, uri: str, name: str) -> str:
        """A table cell: the result of an input, with its scores below it where it has any."""
        if uri not in self.results:
            return "<td></td>"
        scores = self.scores.get(uri, {})
        known = {score: scores[score] for score in SCORES if scores.get(score) is not None}
        data = "".join(f" data-{score}='{value:.6g}'" for score, value in known.items())
        said = ", ".join(f"{score} {value:.2f}" for score, value in known.items())
        flags = f" <b>{html.escape(scores['flags'])}</b>" if scores.get("flags") else ""
        return f"<td{data}>{_pair(self.results[uri], name, html.escape(str(self.style)))}{said}{flags}</td>"


@dataclass(frozen=True)
class Gallery:
    """Rows: photo | style 1 | style 2 …, in the order of the input URIs; the references on top."""

    photos: dict[str, Image.Image]
    columns: list[Column]

    def sheet(self, blocks: int = 3) -> Image.Image:
        """The whole gallery in one picture, its rows in ``blocks`` side by side."""
        rows = list(self.photos)
        per_block = -(-len(rows) // blocks)
        step, width = TILE + _GAP, 1 + len(self.columns)
        size = (blocks * width * step + (blocks - 1) * 4 * _GAP + _GAP, (per_block + 1) * step + _GAP)
        sheet = Image.new("RGB", size, "white")
        for block in range(blocks):
            left = block * (width * step + 4 * _GAP) + _GAP
            for i, column in enumerate(self.columns, 1):
                sheet.paste(_tile(column.reference), (left + i * step, _GAP))
            for j, uri in enumerate(rows[block * per_block : (block + 1) * per_block], 1):
                pictures = [self.photos[uri], *(column.results.get(uri) for column in self.columns)]
                for i, picture in enumerate(pictures):
                    if picture is not None:
                        sheet.paste(_tile(picture), (left + i * step, _GAP + j * step))
        return sheet

    def _sorting(self) -> str:
        """What rows can be sorted by, where pictures have scores."""
        if not any(column.scores for column in self.columns):
            return ""
        options = "".join(
            f"<option value='{score} {sign}'>{score}, {word} first</option>"
            for score in SCORES
            for sign, word in ((1, "lowest"), (-1, "highest"))
        )
        return f"<p><label>Sort by <select id='sort'><option value=''>name</option>{options}</select></label></p>\n"

    def html(self, title: str) -> bytes:
        """A self-contained page; a slider on each stylization uncovers the photograph."""
        head = "".join(
            f"<th><img src='{_data_uri(c.reference)}' alt='reference'><br>{html.escape(str(c.style))}</th>"
            for c in self.columns
        )
        body = ""
        for uri, photo in self.photos.items():
            name = html.escape(uri.rpartition("/")[2], quote=True)
            cells = "".join(column.cell(uri, name) for column in self.columns)
            body += f"<tr><td><img src='{_data_uri(photo)}' alt='{name}' title='{name}'></td>{cells}</tr>\n"
        return (
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>\n"
            f"<meta name='viewport' content='width=device-width'>\n<style>{_STYLE}</style>\n"
            f"<h1>{html.escape(title)}</h1>\n"
            "<p>Draw the slider over a picture, or use the arrow keys, to see the photograph beneath it.</p>\n"
            f"{self._sorting()}<table><thead><tr><th>photo</th>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"
            f"<script>{_SCRIPT}</script></html>\n"
        ).encode()


def read_gallery(rows: list[dict[str, Any]], versions: list[StyleVersion]) -> Gallery:
    """From ``done`` manifest rows (input_uri, style_id, version, output_uri, transform; scores) and the
    styles to show.
    """
    photos: dict[str, Image.Image] = {}
    results: dict[tuple[str, int], dict[str, Image.Image]] = {(v.style_id, v.version): {} for v in versions}
    scores: dict[tuple[str, int], dict[str, dict[str, Any]]] = {key: {} for key in results}
    for row in sorted(rows, key=lambda row: row["input_uri"]):
        column = results.get((row["style_id"], int(row["version"])))
        if column is None:
            continue
        uri = row["input_uri"]
        if any(row.get(score) is not None for score in SCORES):
            scores[row["style_id"], int(row["version"])][uri] = row
        column[uri] = decode_image(read_picture(row))
        if uri not in photos:
            photos[uri] = _as_stylized(decode_image(Storage.open(uri).read_bytes()), row["transform"], column[uri])
    columns = [
        Column(v, decode_image(Storage.open(v.reference_uri).read_bytes()), results[key], scores[key])
        for v in versions
        for key in [(v.style_id, v.version)]
    ]
    return Gallery(photos, columns)


def _as_stylized(photo: Image.Image, transform: str, result: Image.Image) -> Image.Image:
    """The part of the photograph that a result shows: all of it where their proportions are equal."""
    if abs(photo.width * result.height - photo.height * result.width) <= max(photo.size):
        return photo
    return photo.crop(FitTransform.model_validate_json(transform).box)


def _tile(picture: Image.Image) -> Image.Image:
    if max(picture.size) < TILE:
        picture = ImageOps.contain(picture, (TILE, TILE), Image.Resampling.BICUBIC)
    return ImageOps.pad(picture, (TILE, TILE), Image.Resampling.LANCZOS, color="white")


def _pair(result: Image.Image, name: str, style: str) -> str:
    """The stylization with the photograph over it, whose source is that of the row's first picture."""
    return (
        f"<div class='pair'><img src='{_data_uri(result)}' alt='{name} as {style}'><img class='photo' alt=''>"
        f"<input type='range' value='0' aria-label='how much of the photograph {name} covers {style}'></div>"
    )


def _data_uri(picture: Image.Image) -> str:
    data = encode_image(_tile(picture), "jpeg", 88)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
