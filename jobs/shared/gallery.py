"""Photographs beside their stylizations, as one picture and one page; drawn from catalog and manifest."""

import base64
import html
import io
from dataclasses import dataclass

from PIL import Image

from catalog.schema import StyleVersion
from cluster.storage import Storage
from osasis.image import FitTransform, decode_image, encode_png

TILE = 128
"""Side of a picture in the gallery, pixels."""
_GAP = 4


@dataclass(frozen=True)
class Column:
    """One style and its results, by input URI."""

    style: StyleVersion
    reference: Image.Image
    results: dict[str, Image.Image]


@dataclass(frozen=True)
class Gallery:
    """Rows: photo | style 1 | style 2 …, in the order of the input URIs; the references on top."""

    photos: dict[str, Image.Image]
    columns: list[Column]

    def png(self, blocks: int = 3) -> bytes:
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
        return encode_png(sheet)

    def html(self, title: str) -> bytes:
        """A self-contained page: no script, no link to anything outside."""
        head = "".join(
            f"<th><img src='{_data_uri(c.reference)}' alt='reference'><br>{html.escape(str(c.style))}</th>"
            for c in self.columns
        )
        body = ""
        for uri, photo in self.photos.items():
            name = html.escape(uri.rpartition("/")[2], quote=True)
            cells = "".join(
                f"<td><img src='{_data_uri(c.results[uri])}' alt='{name} as {html.escape(str(c.style))}'></td>"
                if uri in c.results
                else "<td></td>"
                for c in self.columns
            )
            body += f"<tr><td><img src='{_data_uri(photo)}' alt='{name}' title='{name}'></td>{cells}</tr>\n"
        return (
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>\n"
            "<meta name='viewport' content='width=device-width'>\n"
            f"<style>body{{font:14px sans-serif;margin:1em}}img{{width:{TILE}px;max-width:28vw;image-rendering:auto}}"
            "td,th{padding:2px;font-weight:normal}thead{position:sticky;top:0;background:#fff}</style>\n"
            f"<h1>{html.escape(title)}</h1><table><thead><tr><th>photo</th>{head}</tr></thead>\n"
            f"<tbody>{body}</tbody></table></html>\n"
        ).encode()


def read_gallery(rows: list[dict[str, str]], versions: list[StyleVersion]) -> Gallery:
    """From ``done`` manifest rows (input_uri, style_id, version, output_uri, transform) and the styles to show."""
    photos: dict[str, Image.Image] = {}
    results: dict[tuple[str, int], dict[str, Image.Image]] = {(v.style_id, v.version): {} for v in versions}
    for row in sorted(rows, key=lambda row: row["input_uri"]):
        column = results.get((row["style_id"], int(row["version"])))
        if column is None:
            continue
        uri = row["input_uri"]
        column[uri] = decode_image(Storage.open(row["output_uri"]).read_bytes())
        if uri not in photos:
            box = FitTransform.model_validate_json(row["transform"]).box
            photos[uri] = decode_image(Storage.open(uri).read_bytes()).crop(box)
    columns = [
        Column(v, decode_image(Storage.open(v.reference_uri).read_bytes()), results[v.style_id, v.version])
        for v in versions
    ]
    return Gallery(photos, columns)


def _tile(picture: Image.Image) -> Image.Image:
    return picture.resize((TILE, TILE), Image.Resampling.BICUBIC)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    _tile(picture).save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
