"""What the end of an evaluation does: figures of everything decided so far, the report, and what the catalog gets."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from deltalake import write_deltalake

from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import StorageError
from cluster.storage.cache import default_cache_dir, fetch
from jobs.evaluating.command import EvaluateJob, groups_of
from jobs.evaluating.figures import COLUMNS, Figures, Summary, read_pairs, summarize
from jobs.evaluating.methods import OURS, Group, read_one
from jobs.evaluating.report import Pair, Report, StyleCard, as_csv, markdown, page
from jobs.evaluating.state import State
from jobs.shared.bases import open_base
from osasis.errors import ImageRejected
from osasis.image import decode_image, encode_image, fit, to_image
from osasis.metrics.networks import load_networks

PAGE, MARKDOWN, CSV = "report.html", "report.md", "figures.csv"
EVALUATIONS = "evaluations"
"""Below the storage, beside the catalog: a Delta table with a row a figure of every evaluation."""

_CATALOG_NAMES = {
    "artfid": "artfid", "fid": "fid", "lpips": "lpips", "id_similarity": "id_similarity",
    "structure_distance": "structure_distance", "style_distance": "evaluated_style_distance", "ssim": "ssim",
    "edges": "edges",
}  # fmt: skip
_BATCH = 16
_STYLES = 50


@dataclass(frozen=True)
class Evaluated:
    """Everything that an evaluation came to."""

    figures: Figures
    groups: Sequence[Group]
    state: State


def evaluated(job: EvaluateJob) -> Evaluated:
    """Figures of what the table holds of this command's groups."""
    table, groups = job.table, groups_of(job.variants)
    frame = read_pairs(table.pairs([group.params_hash for group in groups], COLUMNS))
    styles = [str(version) for version in job.styles]
    figures = summarize(frame, groups, styles, table.state, reference_features(job))
    return Evaluated(figures, groups, table.state)


@torch.inference_mode()
def reference_features(job: EvaluateJob) -> dict[str, Any]:
    """FID's features of each style's picture."""
    base = open_base(job.base_location, "cpu", default_cache_dir())
    networks = load_networks(base, fetch(job.flags.networks) if job.flags.networks else None)
    names, found = list(job.references), []
    for start in range(0, len(names), _BATCH):
        pictures = [job.references[name].read(base.image_size) for name in names[start : start + _BATCH]]
        found.append(networks.features(torch.cat(pictures)).double().numpy())
    return dict(zip(names, np.concatenate(found), strict=True))


def write_report(job: EvaluateJob, result: Evaluated) -> None:
    """The page, Markdown and CSV, anew."""
    report = make_report(job, result)
    job.output.write_bytes(MARKDOWN, markdown(report).encode(errors="backslashreplace"))
    job.output.write_bytes(CSV, as_csv(report).encode(errors="backslashreplace"))
    job.output.write_bytes(PAGE, page(report).encode())


def make_report(job: EvaluateJob, result: Evaluated) -> Report:
    recipe, flags, groups = job.recipe, job.flags, result.groups
    photographs = max((summary.photographs for summary in result.figures.overall), default=0)
    said = f"{flags.content}, density {flags.density}" if flags.density else flags.content
    report = Report(
        title=recipe.title if recipe else "Evaluation",
        about=recipe.about if recipe else "",
        facts={
            "photographs": f"{photographs} of {said}, at {job.base.image_size} pixels ({flags.fit})",
            "styles": ", ".join(map(str, job.styles[:_STYLES])) + (" …" if len(job.styles) > _STYLES else ""),
            "base": job.base.name,
            "same for all": "every figure is over the same photographs and styles for each method",
        },
        networks=job.metrics.described(job.base.name),
        stand_ins=job.metrics.stand_ins,
        groups=groups,
        figures=result.figures,
        paper=recipe.paper if recipe else {},
    )
    photos: dict[str, bytes | None] = {}

    def photo(uri: str) -> bytes | None:
        if uri not in photos:
            photos[uri] = _photo(job, uri)
        return photos[uri]

    for style in map(str, job.styles):
        report.cards += _card(job, result, style, photo)
    for group in (g for g in groups if g.method == OURS):
        for kind, shown in (("best", report.best), ("worst", report.worst)):
            kept = result.state.shown.get((group.params_hash, kind))
            shown[group.name] = [Pair(pair, photo(pair.input_uri)) for pair in (kept.pairs if kept else [])]
    return report


def _card(job: EvaluateJob, result: Evaluated, style: str, photo: Any) -> list[StyleCard]:
    """None where no picture of the style was kept."""
    kept = [result.state.shown.get((group.params_hash, style)) for group in result.groups]
    by_group = [{pair.input_uri: pair.picture for pair in shown.pairs} if shown else {} for shown in kept]
    uris = list(dict.fromkeys(uri for pictures in by_group for uri in pictures))
    if not uris:
        return []
    reference = to_image(job.references[style].read(job.base.image_size)[0])
    rows = [(photo(uri), [pictures.get(uri) for pictures in by_group]) for uri in uris]
    return [StyleCard(style, encode_image(reference, "jpeg", 90), rows)]


def _photo(job: EvaluateJob, uri: str) -> bytes | None:
    with suppress(StorageError, ImageRejected, OSError, ConfigError):
        square, _ = fit(decode_image(read_one(uri)), job.base.image_size, job.flags.fit)
        return encode_image(square, "jpeg", 90)
    return None


def record_results(job: EvaluateJob, result: Evaluated, run_id: str) -> None:
    """Figures to the table beside the catalog and, where ours was measured as it is by default, to its styles.

    Raises:
        StorageError: the storage cannot be written.
    """
    rows = [
        {
            "run_id": run_id, "style": s.style, "method": s.group.method, "setting": s.group.setting,
            "params_hash": s.group.params_hash, "networks": job.metrics.identity, "content": job.flags.content,
            "density": job.flags.density or "", "pairs": s.pairs, "photographs": s.photographs, "metric": name,
            "value": f.value, "low": f.low, "high": f.high,
        }
        for s in (*result.figures.overall, *result.figures.by_style)
        for name, f in s.figures.items()
    ]  # fmt: skip
    if not rows:
        return
    import pyarrow as pa

    write_deltalake(
        job.storage.delta_uri(EVALUATIONS), pa.Table.from_pylist(rows), mode="append",
        storage_options=job.storage.delta_options(),
    )  # fmt: skip
    metrics = {
        (version.style_id, version.version): catalog_metrics(s)
        for version in job.styles
        for s in result.figures.by_style
        if s.style == str(version) and s.group.method == OURS and not s.group.setting
    }
    if metrics:
        StyleCatalog.open(job.storage).set_metrics(metrics)


def catalog_metrics(summary: Summary) -> dict[str, float]:
    """A style's figures by the names they have in the catalog; ``style_distance`` is training's own there."""
    return {_CATALOG_NAMES[name]: figure.value for name, figure in summary.figures.items()}
