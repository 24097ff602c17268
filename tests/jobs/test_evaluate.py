"""The evaluation: figures equal to independent arithmetic, exactly once through kills, the report in a real browser."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from deltalake import DeltaTable

from catalog.filters import Condition
from catalog.gallery import write_gallery
from catalog.manifest import Manifest
from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.evaluating.command import EvaluateFlags, groups_of, resolve, varied, with_recipe
from jobs.evaluating.figures import COLUMNS, summarize
from jobs.evaluating.methods import Group, found_in, pictures_of_folder
from jobs.evaluating.state import PairsTable, State, fold_of
from jobs.streaming import recording
from jobs.streaming.execution import Execution
from osasis.base import load_base
from osasis.image import FitMode, decode_image, fit, to_tensor
from osasis.metrics.frechet import Moments
from osasis.metrics.networks import load_networks
from osasis.metrics.pairs import PAIR_METRICS
from osasis.settings import StylizeConfig
from tests.support.browser import CHROMIUM, WITHOUT_BROWSER, browser, opened
from tests.support.hostile import encoded, picture
from tests.support.in_process import without_cluster
from tests.support.jobs_run import call_job
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE

PHOTOS = 5
FAST = {"encode_steps": 10, "decode_steps": 5, "batch_size": 2, "workers": 1}


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A case that needs no Ray."""
    without_cluster(monkeypatch)
    return make_case(tmp_path)


def make_case(tmp_path: Path) -> Case:
    """Two styles with references, photographs of which one is broken, another method's pictures of all but one."""
    root = Storage.open(tmp_path / "root")
    made = Case.make(root, tmp_path, styles=0)
    for i in range(2):
        root.write_bytes(f"references/{i}.png", encoded(picture(20, 20, seed=90 + i), "PNG"))
        made.register(f"style-{i}", seed=i, reference=root.child_uri(f"references/{i}.png"))
        for k in range(1, PHOTOS + 1):
            root.write_bytes(f"other/style-{i}/0000{k}.jpg", encoded(picture(30, 30, seed=50 + k), "JPEG"))
    made.add_pictures(PHOTOS)
    made.add({"00005.png": b"broken"})
    return made


def given(case: Case, **more: Any) -> dict[str, Any]:
    root = case.root
    flags = {"storage": root.uri, "content": root.child_uri("in"), "output": root.child_uri("eval"), "styles": "all"}
    return flags | {"base": str(case.base)} | FAST | more


def argv(case: Case, **more: Any) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in given(case, **more).items()]


def squares(case: Case, names: list[str], mode: FitMode = "crop") -> torch.Tensor:
    return torch.stack([to_tensor(fit(decode_image(case.root.read_bytes(name)), SIZE, mode)[0]) for name in names])


def refuse(*_: Any) -> None:
    raise AssertionError("nothing was missing")


def test_all_methods_are_measured_on_the_same_photographs_and_again_costs_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = case.root.child("eval")
    flags = argv(case, methods=f"ours,other={case.root.child_uri('other')}")
    said = call_job("evaluate", *flags, expect=3)
    assert "Measured by stand-ins of the base" in said
    assert "1 without a picture of other, style-0@1" in said

    rows = DeltaTable(out.delta_uri("evaluation")).to_pyarrow_table().to_pandas()
    assert len(rows) == PHOTOS * 2 * 4, "photographs 1 to 4 and the broken one, two styles, four methods"
    done = rows[rows["status"] == "done"]
    assert done.groupby("method").size().to_dict() == dict.fromkeys(
        ("ours", "colour-transfer", "photograph", "other"), 8
    )
    assert set(rows[rows["status"] == "rejected"]["error_type"]) == {"not-an-image"}
    photographs = done[done["method"] == "photograph"]
    assert photographs["lpips"].abs().max() < 1e-5
    assert photographs["ssim"].min() > 0.999

    # FID of the photographs, from nothing but pictures and NumPy.
    base = load_base(case.base)
    networks = load_networks(base)
    with torch.no_grad():
        ours = networks.features(squares(case, [f"in/0000{i}.png" for i in range(1, 5)]).repeat(2, 1, 1, 1)).numpy()
        references = squares(case, ["references/0.png", "references/1.png"], "squash")  # as these styles were trained
        theirs = networks.features(references).numpy().repeat(4, 0)
    x, y = ((f.astype(np.float64) - f.mean(0, dtype=np.float64)) / 7**0.5 for f in (ours, theirs))
    roots = np.linalg.svd(x @ y.T, compute_uv=False).sum()  # tr (C1 C2)^½ of C1 = XᵀX, C2 = YᵀY, which are singular
    fid = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * roots
    figures = pd.read_csv(io.BytesIO(out.read_bytes("figures.csv"))).set_index(["style", "method", "metric"])["value"]
    table = figures.loc[figures.index.get_level_values(0).isna()].droplevel(0)
    assert table["photograph", "fid"] == pytest.approx(fid, rel=1e-3)
    assert table["photograph", "artfid"] == pytest.approx(1 + fid, rel=1e-3)
    means = done.groupby("method")["structure_distance"].mean()
    assert table["other", "structure_distance"] == pytest.approx(means["other"])

    version = StyleCatalog.open(case.root).list(where=[Condition.parse("artfid<1e9")])[0]
    lpips = done[(done["method"] == "ours") & (done["style_id"] == "style-0")]["lpips"].mean()
    assert version.metrics["lpips"] == pytest.approx(lpips)
    page = case.root.child("styles.html")
    write_gallery(page, [version], title="Measured", source=case.root.uri)
    assert all(f'"{metric}"' in page.read_bytes("").decode() for metric in ("artfid", "structure_distance"))
    stored = DeltaTable(case.root.delta_uri("evaluations")).to_pyarrow_table().to_pylist()
    assert {row["method"] for row in stored} == {"ours", "other", "colour-transfer", "photograph"}
    assert "stand-in of tiny" in out.read_bytes("report.md").decode()

    monkeypatch.setattr(Execution, "connected", refuse)
    assert "32 pairs measured" in call_job("evaluate", *flags, expect=3)


def test_a_broken_picture_of_another_method_is_a_row_and_left_out_for_all(case: Case) -> None:
    case.root.write_bytes("other/style-0/00002.jpg", b"broken")
    case.root.delete("in/00005.png")
    call_job("evaluate", *argv(case, methods=f"other={case.root.child_uri('other')}"), expect=3)
    report = case.root.read_bytes("eval/report.md").decode()
    assert "00002.png (not-an-image)" in report
    assert "FID of photograph is over 1 pairs that another method lacks" in report
    lines = list(csv.DictReader(io.StringIO(case.root.read_bytes("eval/figures.csv").decode())))
    assert {line["pairs"] for line in lines if not line["style"]} == {"7"}


class Stopped(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_killed_and_run_again_the_moments_are_those_of_one_run(
    case: Case, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    committed = Manifest.append
    commits: list[int] = []

    def killed(table: Manifest, rows: Any) -> None:
        commits.append(len(rows))
        if len(commits) < 3 or moment == "after the commit":
            committed(table, rows)
        if len(commits) == 3:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(recording, "COMMIT_ROWS", 4)
        patch.setattr(Manifest, "append", killed)
        call_job("evaluate", *argv(case), expect=1)
    call_job("evaluate", *argv(case), expect=3)
    call_job("evaluate", *argv(case, output=case.root.child_uri("whole")), expect=3)
    states = [PairsTable(case.root.child(name)).state for name in ("eval", "whole")]
    assert len(commits) >= 3
    assert states[0].moments.keys() == states[1].moments.keys()
    for key, m in states[1].moments.items():
        assert states[0].moments[key].count == m.count
        np.testing.assert_allclose(states[0].moments[key].mean, m.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(states[0].moments[key].scatter, m.scatter, rtol=1e-2, atol=1e-4)
    assert states[0].shown.keys() == states[1].shown.keys()
    assert len(case.root.list_files("eval/state")) == 1


@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT_BROWSER)
def test_the_page_shows_tables_strips_and_extremes_and_asks_for_nothing(case: Case, tmp_path: Path) -> None:
    recipe = {
        "title": "Table <2>", "about": "A recipe.", "flags": {"vary": ["lambda_spn=0", "1"], "content": "in"},
        "paper": {"lambda_spn=0": {"artfid": 36.41}},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    call_job("evaluate", *argv(case, recipe=tmp_path / "recipe.yaml"), expect=3)
    path = Path(case.root.child("eval", "report.html").path)
    with browser() as chromium, opened(chromium, path) as shown:
        assert shown.title() == "Table <2>"
        heads = shown.locator(".overall th").all_inner_texts()
        assert heads[:2] == ["method", "pairs"]
        assert heads[-1] == "ArtFID, paper"
        names = shown.locator(".overall tbody td:first-child").all_inner_texts()
        assert names == ["ours, lambda_spn=0", "ours, lambda_spn=1", "colour-transfer", "photograph"]
        assert shown.locator(".overall tbody td:last-child").all_inner_texts() == ["36.41", "–", "–", "–"]
        assert shown.locator(".card").count() == 2
        assert shown.locator(".card").first.locator(".strip tr").count() == 5, "a heading and four photographs"
        assert shown.locator(".pairs").count() == 4, "best and worst of each setting"
        assert "Stand-ins measure" in shown.locator(".note").first.inner_text()
        broken = shown.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
        assert broken == 0
        assert shown.evaluate("document.images.length") > 40


def test_settings_are_varied_one_list_at_a_time() -> None:
    config = StylizeConfig()
    found = varied(config, ["lambda_spn=0", "0.5", "swap-conditioning=true"])
    assert list(found) == ["lambda_spn=0", "lambda_spn=0.5", "swap_conditioning=true"]
    assert [c.lambda_spn for c in found.values()] == [0, 0.5, 0.1]
    assert found["swap_conditioning=true"].swap_conditioning
    for wrong in (["lamda=1"], ["0.5"], ["t0_ratio=2"]):
        with pytest.raises(ValueError, match=r"setting|NAME=|less than"):
            varied(config, wrong)


def test_content_by_density_and_problems_all_at_once(case: Case, tmp_path: Path) -> None:
    uris = [case.root.child_uri(f"in/0000{i}.png") for i in range(3)]
    case.root.write_bytes("ranked/low.txt", "\n".join(uris).encode())
    job = resolve(EvaluateFlags(**given(case, content=case.root.child_uri("ranked"), density="low", count=2)))
    assert [item.uri for item in job.source.items()] == uris[:2]
    assert [group.name for group in groups_of(job.variants)] == ["ours", "colour-transfer", "photograph"]
    names = pictures_of_folder(case.root.child("other", "style-0"))
    (found, _) = (found_in(names, item.key, item.uri) for item in job.source.items())
    assert found is None, "photograph 0 has no picture there"
    wrong = given(case, content=case.root.child_uri("ranked"), density="high", vary=["nothing=1"], methods=["what"])
    with pytest.raises(ConfigError) as caught:
        resolve(EvaluateFlags(**wrong | {"networks": str(tmp_path / "none")}))
    assert {p.place for p in caught.value.problems} == {"--content", "--vary", "--methods", "--networks"}
    (tmp_path / "wrong.yaml").write_text("title: x\nflags: {lambdas: 1}")
    with pytest.raises(ConfigError, match=r"flags\.lambdas"):
        with_recipe(EvaluateFlags(**given(case, recipe=str(tmp_path / "wrong.yaml"))))


@pytest.mark.parametrize("recipe", sorted(Path("samples/paper").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_paper_is_a_valid_command(case: Case, recipe: Path) -> None:
    uris = "\n".join(case.root.child_uri(f"in/0000{i}.png") for i in range(3))
    case.root.write_bytes("ranked/low.txt", uris.encode())
    ranked = case.root.child_uri("ranked")
    flags, found = with_recipe(EvaluateFlags(**given(case, recipe=str(recipe))))
    assert found is not None
    flags = EvaluateFlags(**flags.model_dump() | ({"content": ranked} if flags.density else {}))
    job = resolve(flags, found)
    settings = {group.setting for group in groups_of(job.variants)}
    assert settings >= {row for row in found.paper if "=" in row}
    assert {name for row in found.paper.values() for name in row} <= {"artfid", "id_similarity", "structure_distance"}


def frame_of(lpips: dict[str, list[float]]) -> pd.DataFrame:
    """Pairs of one style; a list a group."""
    rows: list[dict[str, Any]] = []
    for params_hash, values in lpips.items():
        for i, value in enumerate(values):
            row = dict.fromkeys(COLUMNS, None) | dict.fromkeys(PAIR_METRICS, value) | {"id_similarity": float("nan")}
            row |= {"input_uri": f"{i:04d}", "input_sha256": f"{i:064x}", "params_hash": params_hash, "status": "done"}
            rows.append(row | {"style": "a@1"})
    return pd.DataFrame(rows)


def test_intervals_cover_the_mean_and_shrink_with_the_root_of_the_photographs() -> None:
    rng = np.random.default_rng(0)
    groups = [Group("ours", "", "x"), Group("photograph", "", "y")]
    widths = []
    for count in (50, 800):
        values = rng.normal(5, 1, count).tolist()
        frame = frame_of({"x": values, "y": [1.0] * (count - 1)})
        figures = summarize(frame, groups, ["a@1"], State(), {})
        ours = figures.overall[0].figures["lpips"]
        assert ours.value == pytest.approx(np.mean(values[:-1])), "the photograph that the other lacks is left out"
        widths.append(ours.high - ours.low)
        assert widths[-1] == pytest.approx(2 * 1.96 / count**0.5, rel=0.25)
        assert figures.uneven == {"ours": 1}
        assert "id_similarity" not in ours.__dict__
        assert len(figures.without_face) == count - 1
        assert figures.by_style[0].figures["artfid"].value == pytest.approx((1 + ours.value) ** 2)


def test_the_state_survives_being_written() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"status": "done", "features": rng.normal(size=4), "input_sha256": f"{i:08x}{i:056x}",
         "params_hash": "h",
         "style_id": "s", "version": 1, "input_uri": str(i), "picture": bytes([i]),
         **dict.fromkeys(PAIR_METRICS, float(i))}
        for i in range(40)
    ]  # fmt: skip
    state = State()
    state.take(rows[:30])
    state = State.loaded(state.dumped())
    state.take(rows[30:])
    assert [pair.figures["artfid"] for pair in state.shown["h", "worst"].pairs] == [39, 38, 37, 36, 35, 34]
    assert [pair.picture for pair in state.shown["h", "s@1"].pairs] == [bytes([i]) for i in range(4)]
    mine = [r["features"] for r in rows if fold_of(r["input_sha256"], 32) == 0]
    expected = Moments.of(np.stack(mine))
    np.testing.assert_allclose(state.moments["h", 0].scatter, expected.scatter)
    assert sum(m.count for m in state.moments.values()) == 40
