"""Figures → a page that holds everything, Markdown and CSV."""

import base64
import csv
import hashlib
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jobs.evaluating.figures import METRICS, Figure, Figures, Summary
from jobs.evaluating.methods import Group
from jobs.evaluating.state import Kept
from osasis.metrics.pairs import BETTER

TITLES = {
    "artfid": "ArtFID", "fid": "FID", "lpips": "LPIPS", "id_similarity": "ID similarity",
    "structure_distance": "structure distance", "style_distance": "style distance", "ssim": "SSIM", "edges": "edges",
}  # fmt: skip
_ROLES = {
    "fid": "FID, ArtFID", "lpips": "LPIPS, ArtFID", "structure": "structure distance", "id": "ID similarity",
    "face": "where the face is", "style": "style distance",
}  # fmt: skip
_LISTED = 20
"""Photographs named where something is wrong with them; the CSV and the table have them all."""


@dataclass
class StyleCard:
    """A style with its pictures. ``rows``: (photograph, picture of each group), None where there is none."""

    style: str
    reference: bytes | None
    rows: list[tuple[bytes | None, list[bytes | None]]] = field(default_factory=list)


@dataclass
class Pair:
    """A pair that is shown for its figures."""

    kept: Kept
    photo: bytes | None


@dataclass
class Report:
    """What is said, and shown. Pictures are JPEG or PNG."""

    title: str
    about: str
    facts: dict[str, str]
    networks: dict[str, str]
    stand_ins: Sequence[str]
    groups: Sequence[Group]
    figures: Figures
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cards: list[StyleCard] = field(default_factory=list)
    best: dict[str, list[Pair]] = field(default_factory=dict)
    worst: dict[str, list[Pair]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What a reader of the tables has to know."""
        said = []
        if self.stand_ins:
            said.append(
                f"Stand-ins measure {', '.join(_ROLES[role].split(',')[0] for role in self.stand_ins)}: these figures "
                "compare rows of this page, and nothing with figures of other networks, the paper's included."
            )
        for name, count in self.figures.uneven.items():
            said.append(f"FID of {name} is over {count} pairs that another method lacks; other figures leave them out.")
        if faceless := self.figures.without_face:
            said.append(f"{len(faceless)} photographs without a face have no ID similarity: {_some(faceless)}.")
        if failed := self.figures.failed:
            reasons = [f"{row['input_uri']} ({row['error_type']})" for row in failed]
            said.append(f"{len(failed)} that could not be measured: {_some(reasons)}.")
        return said

    def paper_row(self, group: Group) -> Mapping[str, float]:
        """What the paper prints of a row; nothing where it is not known."""
        return self.paper.get(group.name) or self.paper.get(group.setting) or {}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value != value:
        return "–"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def shown(figure: Figure | None) -> str:
    """``0.36 [0.35, 0.38]``."""
    if figure is None:
        return "–"
    interval = f" [{number(figure.low)}, {number(figure.high)}]" if figure.low == figure.low else ""
    return number(figure.value) + interval


def _columns(rows: Iterable[Summary]) -> list[str]:
    used = {name for row in rows for name in row.figures}
    return [name for name in METRICS if name in used]


def _heading(name: str) -> str:
    return f"{TITLES[name]} {'↓' if BETTER[name] == 'low' else '↑'}"


def _table(
    report: Report, rows: Sequence[Summary], first: Callable[[Summary], list[str]], heads: list[str]
) -> tuple[list[str], list[list[str]]]:
    """(headings, rows of cells)."""
    columns = _columns(rows)
    named = heads[0] == "method"  # what the paper prints is over all styles
    paper = [name for name in columns if named and any(name in report.paper_row(row.group) for row in rows)]
    headings = [*heads, *map(_heading, columns), *(f"{TITLES[name]}, paper" for name in paper)]
    cells = [
        [*first(row), *(shown(row.figures.get(name)) for name in columns)]
        + [number(report.paper_row(row.group).get(name, float("nan"))) for name in paper]
        for row in rows
    ]
    return headings, cells


def overall_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """A row a group."""
    return _table(report, report.figures.overall, lambda s: [s.group.name, str(s.pairs)], ["method", "pairs"])


def paper_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """What the paper prints, as far as it is known."""
    names = [name for name in METRICS if any(name in row for row in report.paper.values())]
    cells = [[row, *(number(f[n]) if n in f else "–" for n in names)] for row, f in report.paper.items()]
    return ["in the paper", *map(_heading, names)], cells


def style_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """A row a style and group."""
    return _table(report, report.figures.by_style, lambda s: [s.style, s.group.name], ["style", "method"])


def markdown(report: Report) -> str:
    """Tables and notes, without pictures."""
    parts = [f"# {report.title}", report.about, _markdown(["", ""], [[k, v] for k, v in report.facts.items()])]
    parts += ["## All styles", _markdown(*overall_table(report)), *report.notes]
    parts += ["In brackets: 95 %, bootstrap over photographs; FID and ArtFID over groups of photographs."]
    parts += [_markdown(*paper_table(report))] if report.paper else []
    parts += ["## Networks", _markdown(["measures", "network"], _network_rows(report))]
    parts += ["## Each style", "FID to one reference: mean squared distance of features to it."]
    parts += [_markdown(*style_table(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _network_rows(report: Report) -> list[list[str]]:
    return [[_ROLES[role], said] for role, said in report.networks.items()]


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)])


def as_csv(report: Report) -> str:
    """A line a figure: over all styles (style empty) and of each."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["style", "method", "setting", "metric", "value", "low", "high", "pairs", "photographs", "paper"])
    for row in (*report.figures.overall, *report.figures.by_style):
        for name, figure in row.figures.items():
            paper = "" if row.style else report.paper_row(row.group).get(name, "")
            numbers = (figure.value, figure.low, figure.high)
            writer.writerow(
                [row.style, row.group.method, row.group.setting, name, *numbers, row.pairs, row.photographs, paper]
            )
    return out.getvalue()


def page(report: Report) -> str:
    """One file that needs no other and no network."""
    style = (files("jobs.evaluating") / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'sha256-{digest}'"
    body = [
        f"<h1>{_text(report.title)}</h1>",
        f"<p>{_text(report.about)}</p>" if report.about else "",
        _html_table(["", ""], [[k, v] for k, v in report.facts.items()], "facts"),
        *(f'<p class="note">{_text(note)}</p>' for note in report.notes),
        "<h2>All styles</h2>",
        _html_table(*overall_table(report), "overall"),
        "<p>In brackets: 95 %, bootstrap over photographs; FID and ArtFID over groups of photographs.</p>",
        _html_table(*paper_table(report), "paper") if report.paper else "",
        "<h2>Networks</h2>",
        _html_table(["measures", "network"], _network_rows(report), "networks"),
        "<h2>Each style</h2>",
        *(_card(report, card) for card in report.cards),
        *(_extremes(f"Best pairs, {name}", pairs) for name, pairs in report.best.items()),
        *(_extremes(f"Worst pairs, {name}", pairs) for name, pairs in report.worst.items()),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<title>{_text(report.title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n<body>\n<main>\n'
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _card(report: Report, card: StyleCard) -> str:
    """Reference, the strip of every method and setting, and the style's figures."""
    rows = [row for row in report.figures.by_style if row.style == card.style]
    headings, cells = _table(report, rows, lambda s: [s.group.name], ["settings"])
    names = "".join(f"<th>{_text(group.name)}</th>" for group in report.groups)
    strips = "".join(
        f"<tr><td>{_picture(photo, 'photograph')}</td>"
        + "".join(f"<td>{_picture(p, g.name)}</td>" for p, g in zip(pictures, report.groups, strict=True))
        + "</tr>"
        for photo, pictures in card.rows
    )
    return (
        f'<section class="card"><h3>{_text(card.style)}</h3>'
        f"<figure>{_picture(card.reference, 'reference')}<figcaption>reference</figcaption></figure>"
        f'<div class="wide"><table class="strip"><tr><th>photograph</th>{names}</tr>{strips}</table></div>'
        + _html_table(headings, cells, "figures")
        + "</section>"
    )


def _extremes(title: str, pairs: Sequence[Pair]) -> str:
    shown_pairs = "".join(
        f"<figure>{_picture(p.photo, 'photograph')}{_picture(p.kept.picture, 'stylized')}<figcaption>"
        f"{_text(p.kept.style)}<br>{_text(p.kept.input_uri.rpartition('/')[2])}<br>"
        f"ArtFID {number(p.kept.figures['artfid'])}</figcaption></figure>"
        for p in pairs
    )
    return f'<h2>{_text(title)}</h2><div class="pairs">{shown_pairs}</div>' if pairs else ""


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in headings)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    thead = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    return f'<div class="wide"><table class="{name}">{thead}<tbody>{body}</tbody></table></div>'


def _picture(data: bytes | None, alt: str) -> str:
    if data is None:
        return ""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _text(value: str) -> str:
    return html.escape(value.encode(errors="backslashreplace").decode())
