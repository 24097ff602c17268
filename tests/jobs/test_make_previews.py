"""Previews made afterwards, for styles that came without."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

import jobs.make_previews
from catalog.filters import Condition
from catalog.gc import collect
from catalog.probes import PROBE_SET
from catalog.store import StyleCatalog, UnknownStyle
from cluster.commandline.cli import ConfigError, ExitCode
from cluster.storage import Storage
from tests.support.stylize_case import Case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case.make(Storage.open(tmp_path / "root"), tmp_path)


def argv(case: Case, *more: str) -> list[str]:
    return ["make_previews.py", f"--storage={case.root.uri}", f"--base={case.base}", "--workers=1", *more]


@pytest.mark.usefixtures("ray_cluster")
def test_styles_without_previews_get_them_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.register("damaged", seed=9)
    case.root.write_bytes("styles/damaged-9.safetensors", b"no longer what it was")
    monkeypatch.setattr("sys.argv", argv(case))
    assert jobs.make_previews.main() == ExitCode.RECORDED_FAILURES
    catalog = StyleCatalog.open(case.root)
    shown = {str(version): version for version in catalog.list()}
    assert {name: version.probe_set for name, version in shown.items()} == {
        "damaged@1": None, "style-0@1": PROBE_SET, "style-1@1": PROBE_SET,
    }  # fmt: skip
    assert [str(v) for v in catalog.list(where=[Condition.parse(f"probe_set={PROBE_SET}")])] == [
        "style-0@1", "style-1@1",
    ]  # fmt: skip
    pictures = [Storage.open(shown[name].preview_uri or "").read_bytes() for name in ("style-0@1", "style-1@1")]
    assert pictures[0] != pictures[1]
    assert Image.open(io.BytesIO(pictures[0])).size == (8 * 256, 2 * 256)

    monkeypatch.setattr("sys.argv", argv(case, "--styles=style-0,style-1"))
    monkeypatch.setattr(jobs.make_previews, "connect", lambda: pytest.fail("there is nothing to do"))
    assert jobs.make_previews.main() == ExitCode.DONE


def test_a_dry_run_touches_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = case.root.list_files()
    monkeypatch.setattr("sys.argv", argv(case, "--dry-run"))
    assert jobs.make_previews.main() == ExitCode.DONE
    assert "style-0@1, style-1@1" in capsys.readouterr().out
    assert case.root.list_files() == before


def test_it_must_be_clear_which_base_is_meant(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [argument for argument in argv(case) if not argument.startswith("--base")])
    with pytest.raises(ConfigError, match="tiny"):
        jobs.make_previews.main()


def test_a_preview_made_later_is_kept_and_freed_with_its_style(case: Case) -> None:
    catalog = StyleCatalog.open(case.root)
    names = [f"checkpoints/style-{i}/previews-1/preview-{PROBE_SET}.png" for i in range(2)]
    for i, name in enumerate(names):
        case.root.write_bytes(name, b"picture")
        catalog.set_preview(f"style-{i}@1", case.root.child_uri(name), PROBE_SET)
    catalog.delete("style-0@1")
    with pytest.raises(UnknownStyle, match="deleted"):
        catalog.set_preview("style-0@1", "elsewhere.png", PROBE_SET)
    report = collect(catalog, timedelta(0), now=datetime.now(UTC) + timedelta(days=40))
    assert report.versions == ["style-0@1"]
    assert [case.root.exists(name) for name in names] == [False, True]
