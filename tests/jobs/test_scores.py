"""Scores of pictures in the manifest: what they are, when there are none, what they mark, how they are shown."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.shared.gallery import Column, Gallery
from jobs.streaming.command import StylizeFlags, resolve
from osasis.image import decode_image, fit, to_tensor
from osasis.metrics import gradient_correlation
from tests.support.hostile import encoded, picture
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE


def case_of(tmp_path: Path) -> Case:
    """One style whose reference is gone, and one that has it."""
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.root.write_bytes("reference.png", encoded(picture(30, 30, seed=9), "PNG"))
    case.register("painted", seed=5, reference=case.root.child_uri("reference.png"))
    case.add_pictures(3)
    return case


def square(uri: str) -> torch.Tensor:
    return to_tensor(fit(decode_image(Storage.open(uri).read_bytes()), SIZE)[0])[None]


def test_pictures_are_scored_and_what_cannot_be_is_null(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    flags = {"styles": "none,all", "scores": True, "flag": ["structure<2", "style>=0", "width=1"]}
    tally = case.run(execute=InProcess.connected, **flags)
    assert case.check_consistent() == {"done": 9}
    assert tally.flagged == 9
    for row in case.rows():
        expected = gradient_correlation(square(row["input_uri"]), square(row["output_uri"])).item()
        assert row["structure"] == pytest.approx(expected, abs=0.02)
        assert (row["style"] is not None) == (row["style_id"] == "painted")
        assert row["flags"] == ("structure<2; style>=0" if row["style_id"] == "painted" else "structure<2")


def test_without_scores_nothing_is_scored(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    case.run(execute=InProcess.connected, styles="painted")
    assert {(row["structure"], row["style"], row["flags"]) for row in case.rows()} == {(None, None, None)}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("structure<0.6", "needs --scores"),
        ("structure", "cannot read the condition"),
        ("loss>3", "rows are marked by structure, style"),
        ("width<wide", "is not a number"),
    ],
)
def test_conditions_are_checked_before_work_starts(tmp_path: Path, flag: str, said: str) -> None:
    case = case_of(tmp_path)
    with pytest.raises(ConfigError, match=said):
        resolve(StylizeFlags(**case.flags, flag=[flag]))


def test_the_gallery_shows_scores_and_sorts_by_them(tmp_path: Path) -> None:
    style = StyleCatalog.open(case_of(tmp_path).root).show("painted")
    photo = Image.new("RGB", (8, 8))
    scores = {"a": {"structure": 0.5, "style": None, "flags": "structure<0.6"}}
    scored = Gallery({"a": photo, "b": photo}, [Column(style, photo, {"a": photo, "b": photo}, scores)])
    page = scored.html("title").decode()
    assert "<td data-structure='0.5'>" in page
    assert "structure 0.50 <b>structure&lt;0.6</b>" in page
    assert "<select id='sort'>" in page
    assert "<select" not in Gallery({"a": photo}, [Column(style, photo, {"a": photo})]).html("title").decode()
