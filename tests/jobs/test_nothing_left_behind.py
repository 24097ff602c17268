"""A dry run and a refused command make no folder, and no path is taken for what a shell would have made of it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from catalog.__main__ import main
from cluster.commandline.cli import ConfigError, check, parse_flags, read_yaml
from cluster.commandline.help import _metavar
from cluster.storage import Storage, StorageRefused
from cluster.storage.cache import default_cache_dir
from jobs.finetuning.plan import make_plan
from jobs.finetuning.styles_file import StylesFile
from tests.support.flags import SCRIPTS, every_flag, flags_of
from tests.support.hostile import encoded, picture
from tests.support.jobs_run import call_job
from tests.support.stylize_case import Case
from tests.support.tiny import tiny_recipe


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A base, a catalog of one style, a picture; tests only read it."""
    folder = tmp_path_factory.mktemp("case")
    case = Case.make(Storage.open(folder / "root"), folder, styles=1)
    case.add_pictures(4)
    (folder / "recipe.json").write_text(tiny_recipe().model_dump_json())
    return case


def _commands(case: Case, new: Path) -> dict[str, tuple[list[object], list[object]]]:
    """Job → (its flags, with ``new`` where it writes; flags that make it wrong)."""
    photos = Path(case.root.child_uri("in"))
    image = photos / "00000.png"
    base, recipe = case.base, case.base.parent / "recipe.json"
    gone = photos / "gone.png"
    small = ["--images", photos, "--recipe", recipe, "--parts", "diffae", "--gflops", 1, "--steps", "diffae=1"]
    return {
        "train_styles": (["--storage", new, "--id", "x", "--base", base, "--image", image], ["--image", gone]),
        "stylize": ([*case.argv(output=new)[1:]], ["--input", gone]),
        "rank_density": (["--input", photos, "--output", new, "--base", base], ["--input", gone]),
        "train_base": (["--name", "x", "--out", new, *small], ["--images", gone]),
        "base_report": (["--base", base, "--images", photos, "--out", new], ["--table", gone]),
        "make_previews": (["--storage", new], ["--styles", "no-such-style"]),
        "train_start": (
            ["--base", base, "--references", photos, "--output", new / "start.safetensors"],
            ["--references", gone],
        ),
        "build_bank": ([], ["--base", gone]),
        "demo": (["--storage", new], ["--limit", 0]),
        "status": (["--storage", new], ["--limit", 0]),
        "import_base": ([], ["--name", "x", "--out", new, "--diffae", gone]),
        "import_metrics": ([], ["--out", new, "--lpips", gone]),
        "import_style": ([], ["--storage", new, "--id", "x", "--base", base, "--image", image, "--checkpoint", gone]),
    }


JOBS = sorted(target.partition(":")[0].removeprefix("jobs.") for target in SCRIPTS.values())


@pytest.mark.parametrize("job", JOBS)
def test_neither_a_dry_run_nor_a_refused_command_leaves_a_folder(job: str, case: Case, tmp_path: Path) -> None:
    commands = _commands(case, tmp_path / "new" / "deep")
    if job not in commands:
        pytest.skip("no command of it is listed here yet")
    flags, wrong = commands[job]
    if flags:  # tests/jobs/test_import_jobs.py has dry runs of the rest
        call_job(job, *flags, "--dry-run")
        assert not any(tmp_path.iterdir())
    call_job(job, *flags, *wrong, expect=2)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [["list"], ["show", "x"], ["search", "x"], ["verify"], ["history", "x"], ["gc", "--older-than", "1d", "--dry-run"]],
)
def test_the_catalog_makes_no_folder_to_look_into(command: list[str], tmp_path: Path) -> None:
    main([*command, "--storage", str(tmp_path / "new")])
    assert not any(tmp_path.iterdir())


def _uris() -> list[tuple[str, str]]:
    found = []
    for job in JOBS:
        for flag, info in every_flag(flags_of(import_module(f"jobs.{job}"))):
            # Those of the method are opened as the styles file's are.
            if _metavar(info) == "URI" and not flag.startswith("--train."):
                found.append((job, flag))
    return found


@pytest.mark.parametrize(("job", "flag"), _uris())
def test_a_path_that_only_a_shell_understands_is_refused(
    job: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("$HOME/x", "${SCRATCH}/x", "~no-such-user/x", "s3:/bucket/x", "file://x/y"):
        with pytest.raises(ConfigError) as caught:
            parse_flags(flags_of(import_module(f"jobs.{job}")), [f"{flag}={path}"])
        assert f"{flag}: '{path}' " in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("job", "flag"),
    [("stylize", "--output"), ("train_styles", "--storage"), ("train_base", "--out"), ("demo", "--storage")],
)
def test_a_variable_within_a_place_that_is_written_is_refused(job: str, flag: str) -> None:
    for path in ("/data/$USER/x", "s3://bucket/${USER}"):
        with pytest.raises(ConfigError, match="holds the variable"):
            parse_flags(flags_of(import_module(f"jobs.{job}")), [f"{flag}={path}"])


@pytest.mark.parametrize(
    "command",
    [
        ["list", "--storage", "$HOME/x"],
        ["list", "--storage", "/data/$USER/x"],
        ["export", "all", "$HOME/x", "--storage", "store"],
        ["pull", "x", "~no-such-user/x", "--storage", "store"],
        ["gallery", "${HOME}/x.html", "--storage", "store"],
    ],
)
def test_the_catalog_refuses_them_too(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 2
    assert "write the path out" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.fixture
def home(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with all that a styles file names; the current folder is another, and empty."""
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "photos").mkdir(parents=True)
    here.mkdir()
    (home / "base").symlink_to(case.base)
    for name in ("art.png", "photo.png", "photos/a.png"):
        (home / name).write_bytes(encoded(picture(24, 20, seed=len(name)), "PNG"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def _plan(text: str) -> object:
    Path("styles.yaml").write_text(text)
    file = read_yaml("styles.yaml")
    Path("styles.yaml").unlink()
    return make_plan(check(file, StylesFile), file)


STYLES = """\
storage: {storage}
base: {base}
styles:
  - id: a
    image: {image}
    train:
      style_photo: {{image: {photo}}}
      content: {{photos: {photos}, count: 1}}
"""
PLACES = {"storage": "store", "base": "base", "image": "art.png", "photo": "photo.png", "photos": "photos"}


def test_a_tilde_in_a_styles_file_is_the_home(home: Path) -> None:
    plan = _plan(STYLES.format(**{key: f"~/{name}" for key, name in PLACES.items()}))
    (style,) = plan.styles  # type: ignore[attr-defined]
    assert plan.storage.uri == str(home / "store")  # type: ignore[attr-defined]
    assert (style.image_uri, style.content) == (f"{home}/art.png", (f"{home}/photos/a.png",))
    assert sorted(path.name for path in home.iterdir()) == ["art.png", "base", "photo.png", "photos"]
    assert not any(Path().iterdir())


@pytest.mark.parametrize(("key", "line"), [*zip(PLACES, (1, 2, 5, 7, 8), strict=True)])
@pytest.mark.parametrize("start", ["$HOME/", "~no-such-user/"])
def test_a_variable_in_a_styles_file_is_refused_with_its_line(home: Path, key: str, line: int, start: str) -> None:
    places = {name: f"~/{value}" for name, value in PLACES.items()} | {key: f"{start}x"}
    with pytest.raises(ConfigError) as caught:
        _plan(STYLES.format(**places))
    (problem,) = caught.value.problems
    assert problem.place.startswith(f"styles.yaml:{line} ")
    assert "write the path out" in problem.message
    assert not any(Path().iterdir())


def test_the_cache_is_where_its_variable_means(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSASIS_CACHE_DIR", "~/cache")
    assert default_cache_dir() == home / "cache"
    for named in ("$HOME/cache", "s3://bucket/cache"):
        monkeypatch.setenv("OSASIS_CACHE_DIR", named)
        with pytest.raises(StorageRefused):
            default_cache_dir()


@pytest.mark.parametrize("open_", [Storage.open, lambda uri: Storage.open(Path(uri))])
def test_a_question_whether_one_may_write_leaves_nothing(open_: Callable[[str], Storage], tmp_path: Path) -> None:
    storage = open_(str(tmp_path / "a" / "b"))
    storage.check_writable()
    assert not any(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    storage.check_writable()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
