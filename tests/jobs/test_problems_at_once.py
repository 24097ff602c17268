"""All problems of a command are told at once, each with its place and the value given; one mistake hides no other."""

from pathlib import Path

import pytest

from cluster.storage import Storage
from tests.support.jobs_run import call_job
from tests.support.stylize_case import Case
from tests.support.tiny import tiny_recipe


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    case = Case.make(Storage.open(folder / "root"), folder, styles=1)
    case.add_pictures(1)
    return case


def told(job: str, *flags: object) -> list[str]:
    return call_job(job, *flags, expect=2).splitlines()


def test_a_wrong_number_hides_neither_a_missing_input_nor_an_unknown_style(case: Case, tmp_path: Path) -> None:
    wrong = {"styles": "nobody", "batch_size": "x", "format_quality": 900}
    flags = case.argv(output=tmp_path / "out", input=tmp_path / "gone", **wrong)
    lines = told("stylize", *flags[1:], "--encode-stps", 3)
    assert len(lines) == 5
    for expected in (
        "--encode-stps: no such flag (did you mean '--encode-steps'?)",
        "--batch-size: must be a whole number, not 'x'",
        "--format-quality: must be less than or equal to 100, not '900'",
        "--styles: in the catalog at ",
        f"--input: no pictures in {tmp_path}/gone",
    ):
        assert any(line.startswith(expected) for line in lines), "\n".join(lines)


def test_a_wrong_input_is_not_blamed_on_the_output(case: Case, tmp_path: Path) -> None:
    for wrong in ("ftp://host/x", "$HOME/photos", str(tmp_path / "none")):
        lines = told("stylize", *case.argv(output=tmp_path / "out", input=wrong)[1:])
        assert [line.partition(":")[0] for line in lines] == ["--input"], lines
        assert wrong in lines[0]


def test_a_wrong_number_hides_nothing_of_the_styles_file(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "styles.yaml"
    file.write_text(
        f"base: {tmp_path}/nobase\nstorage: {tmp_path}/out\ntypo: 1\nstyles:\n"
        "  - {id: Bad Id, image: gone.png}\n  - {id: 007, image: also-gone.png, train: {iterations: yes}}\n"
    )
    lines = told("train_styles", "--config", file, "--workers", "x", "--train.batch-size", "many", "--max-failures", -1)
    for expected in (
        "--workers: must be a number such as 8, a range such as 2-64, or auto, not 'x'",
        "--train.batch-size: must be a whole number, not 'many'",
        "--max-failures: must be greater than or equal to 0, not '-1'",
        f"{file}:3 typo: unknown key",
        f"{file}:5 styles[0].id: must match",
        f'{file}:6: 007 is not a plain number in YAML (quote it for text: "007"; or write 7)',
        f"{file}:6 styles[1].train.iterations: must be a whole number, not 'yes'",
        f"{file}:1 base: no base",
        f"{file}:5 styles[0].image: ",
        f"{file}:6 styles[1].image: ",
    ):
        assert any(line.startswith(expected) for line in lines), "\n".join(lines)
    assert "not 'Bad Id'" in "\n".join(lines)
    assert not (tmp_path / "out").exists()


def test_of_a_single_style_too(case: Case, tmp_path: Path) -> None:
    flags = ("--storage", tmp_path / "out", "--id", "Bad Id", "--image", "gone.png", "--base", "nobase")
    lines = told("train_styles", *flags, "--train.iterations", "x", "--cpus-per-worker", "y")
    places = [line.partition(":")[0] for line in lines]
    assert sorted(places) == ["--base", "--cpus-per-worker", "--id", "--image", "--train.iterations"], lines


def test_every_job_that_reads_files_tells_all_that_are_missing(tmp_path: Path) -> None:
    gone, out, recipe = tmp_path / "gone", tmp_path / "out", tmp_path / "recipe.json"
    recipe.write_text(tiny_recipe().model_dump_json())
    for command, places in {
        f"rank_density --input {gone} --base {gone} --output {out} --limit 0": "base input limit",
        f"train_base --images {gone} --name x --out {out} --recipe {recipe} --bank-images {gone} --start-from {gone}"
        " --workers x": "bank-images images start-from workers",
        f"import_style --storage {out} --id x --base {gone} --checkpoint {gone} --image {gone} --photo {gone}"
        " --device abacus": "base checkpoint device image photo",
        f"base_report --base {gone} --images {gone} --out {out} --recipe none --samples 0": "base images recipe "
        "samples",
        f"import_base --name x --out {out} --diffae {gone} --clip {gone} --config {gone}": f"clip diffae {gone}",
        f"make_previews --storage {out} --styles nobody --base {gone} --workers 0": "base styles workers",
    }.items():
        lines = told(*command.split())
        assert {line.partition(":")[0].removeprefix("--") for line in lines} == {*places.split()}, (command, lines)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
