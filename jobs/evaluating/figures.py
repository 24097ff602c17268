"""Rows of pairs and moments of features → figures with intervals.

Intervals are percentile bootstraps over photographs (Efron 1979): a photograph is drawn with all its styles, the same
draws for all methods. FID is no mean over pairs; its draws are of the groups of photographs that moments are kept for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from jobs.evaluating.methods import Group
from jobs.evaluating.state import State, fold_of, folds
from osasis.metrics.frechet import Moments, frechet_distance, resampled
from osasis.metrics.pairs import PAIR_METRICS

COLUMNS = [
    "input_uri", "input_sha256", "style_id", "version", "params_hash", "status", "error_type", "error", *PAIR_METRICS,
]  # fmt: skip
METRICS = (
    "artfid", "fid", "lpips", "id_similarity", "structure_distance", "style_distance", "ssim", "edges",
)  # fmt: skip
"""Of a group or of a style in it, in the order of tables."""

_DRAWS, _DRAWS_OF_MANY, _MANY = 1000, 200, 20_000
_FID_DRAWS = 200
_PERCENTILES = (2.5, 97.5)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """An estimate and its interval of 95 %; none where fewer than two photographs could be drawn from."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @classmethod
    def of(cls, value: float, draws: Sequence[float] | Array) -> "Figure":
        finite = np.asarray(draws, np.float64)
        finite = finite[np.isfinite(finite)]
        return cls(value, *map(float, np.percentile(finite, _PERCENTILES))) if len(finite) > 1 else cls(value)


@dataclass(frozen=True)
class Summary:
    """Figures of a group, over all styles or in one."""

    group: Group
    style: str
    """``id@version``; empty: over all."""
    pairs: int
    photographs: int
    faces: int
    """Pairs with an ID similarity."""
    figures: dict[str, Figure]


@dataclass
class Figures:
    """Everything that a report says."""

    overall: list[Summary] = field(default_factory=list)
    by_style: list[Summary] = field(default_factory=list)
    without_face: list[str] = field(default_factory=list)
    """URIs of photographs in which no face was found."""
    failed: list[dict[str, Any]] = field(default_factory=list)
    uneven: dict[str, int] = field(default_factory=dict)
    """Pairs in a group's FID that another group lacks, by the group's name; they are left out of all else."""


def read_pairs(batches: Iterable[pa.RecordBatch]) -> pd.DataFrame:
    """Rows of the table, of COLUMNS, and the ``style`` of each."""
    tables = [pa.table(batch) for batch in batches]
    if not tables:
        return pd.DataFrame(columns=[*COLUMNS, "style"])
    frame: pd.DataFrame = pa.concat_tables(tables, promote_options="permissive").select(COLUMNS).to_pandas()
    frame["style"] = frame["style_id"].str.cat(frame["version"].astype(str), sep="@")
    return frame


def summarize(
    frame: pd.DataFrame, groups: Sequence[Group], styles: Sequence[str], state: State, references: Mapping[str, Array]
) -> Figures:
    """Figures of the groups. ``references``: features of each style's picture."""
    result = Figures()
    rows = frame[frame["style"].isin(styles)]
    done = rows[rows["status"] == "done"]
    failed = rows[rows["status"] != "done"].drop_duplicates(["input_uri", "error_type"])
    names = ["input_uri", "style", "status", "error_type", "error"]
    result.failed = [dict(zip(names, row, strict=True)) for row in failed[names].itertuples(index=False)]
    shared = done.groupby(["input_uri", "style"]).size()
    complete = shared[shared == len(groups)].index
    common = done.set_index(["input_uri", "style"]).loc[lambda d: d.index.isin(complete)].reset_index()
    faceless = common.loc[common["id_similarity"].isna(), "input_uri"]
    result.without_face = sorted(faceless.unique())
    photographs = common["input_uri"].drop_duplicates().sort_values().to_list()
    draws = _draws(len(photographs))
    for group in groups:
        mine = common[common["params_hash"] == group.params_hash]
        of_all = done[done["params_hash"] == group.params_hash]
        if extra := len(of_all) - len(mine):
            result.uneven[group.name] = extra
        if mine.empty:
            continue
        result.overall.append(
            _summary(group, "", mine, _means(mine, photographs, draws) | _fid(group, of_all, mine, state, references))
        )
        for style in styles:
            part = mine[mine["style"] == style]
            if not part.empty:
                result.by_style.append(_summary(group, style, part, _style_figures(part, photographs, draws)))
    return result


def _summary(group: Group, style: str, rows: pd.DataFrame, figures: dict[str, Figure]) -> Summary:
    faces = int(rows["id_similarity"].notna().sum())
    ordered = {name: figures[name] for name in METRICS if name in figures}
    return Summary(group, style, len(rows), rows["input_uri"].nunique(), faces, ordered)


def _draws(photographs: int) -> npt.NDArray[np.uint8]:
    """How often each photograph is in each draw, [draws, photographs]; the first draw is the photographs themselves."""
    rng = np.random.default_rng(0)
    count = _DRAWS if photographs <= _MANY else _DRAWS_OF_MANY
    weights = np.ones((count + 1 if photographs > 1 else 1, photographs), np.uint8)
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(photographs, size=photographs), minlength=photographs)
    return weights


def _drawn_means(rows: pd.DataFrame, photographs: list[str], draws: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """Mean over pairs of each metric, in each draw."""
    by_photo = rows.groupby("input_uri")[list(PAIR_METRICS)]
    sums = by_photo.sum().reindex(photographs).fillna(0).to_numpy(np.float64)
    counts = by_photo.count().reindex(photographs).fillna(0).to_numpy(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.stack([(row @ sums) / (row @ counts) for row in (weights.astype(np.float64) for weights in draws)])
    return dict(zip(PAIR_METRICS, means.T, strict=True))


def _means(rows: pd.DataFrame, photographs: list[str], draws: npt.NDArray[np.uint8]) -> dict[str, Figure]:
    found = _drawn_means(rows, photographs, draws)
    return {
        name: Figure.of(values[0], values[1:])
        for name, values in found.items()
        if name not in ("artfid", "feature_distance") and np.isfinite(values[0])
    }


def _style_figures(rows: pd.DataFrame, photographs: list[str], draws: npt.NDArray[np.uint8]) -> dict[str, Figure]:
    """Of one style: FID to its one reference is the mean squared distance of features to it."""
    found = _drawn_means(rows, photographs, draws)
    artfid = (1 + found["lpips"]) * (1 + found["feature_distance"])
    return _means(rows, photographs, draws) | {
        "fid": Figure.of(found["feature_distance"][0], found["feature_distance"][1:]),
        "artfid": Figure.of(artfid[0], artfid[1:]),
    }


def _fid(
    group: Group, of_all: pd.DataFrame, common: pd.DataFrame, state: State, references: Mapping[str, Array]
) -> dict[str, Figure]:
    """FID of all pictures of a group to the references, each as often as it has pictures; and ArtFID with it."""
    parts = {fold: m for (params_hash, fold), m in state.moments.items() if params_hash == group.params_hash}
    counts = of_all["style"].value_counts()
    there = [style for style in references if style in counts.index]
    if not parts or not there:
        return {}
    features = np.stack([references[style] for style in there])
    target = Moments.repeated(features, np.asarray(counts.loc[there], np.int64))
    numbers = sorted(parts)
    moments = [parts[number] for number in numbers]
    lpips = _lpips_of_folds(common, numbers, folds(features.shape[1]))
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=_FID_DRAWS)
    fids, artfids = [], []
    for weights in (np.ones(len(numbers), np.int64), *(draws if len(numbers) > 1 else ())):
        fid = frechet_distance(resampled(moments, weights), target)
        sums, pairs = weights @ lpips
        fids.append(fid)
        artfids.append((1 + sums / pairs) * (1 + fid) if pairs else np.nan)
    return {"fid": Figure.of(fids[0], fids[1:]), "artfid": Figure.of(float(artfids[0]), artfids[1:])}


def _lpips_of_folds(rows: pd.DataFrame, numbers: Sequence[int], count: int) -> Array:
    """[folds, (sum of LPIPS, pairs)]."""
    fold = rows["input_sha256"].map(lambda digest: fold_of(digest, count))
    grouped = rows["lpips"].groupby(fold).agg(["sum", "count"])
    return np.asarray(grouped.reindex(list(numbers)).fillna(0).to_numpy(np.float64))
