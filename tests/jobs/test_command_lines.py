"""The command line of every job: its help, its examples, its console script."""

import re
import shlex
from importlib import import_module

import pytest

from cluster.commandline.cli import JobFlags, parse_flags
from osasis import __version__
from tests.support.flags import ROOT, SCRIPTS, every_flag, flags_of

NO_GROUP = {"required", "options", "general"}


def shown_help(flags: type[JobFlags], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        parse_flags(flags, ["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_every_job_has_a_console_script() -> None:
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert {name: target for name, target in SCRIPTS.items()} == {
        f"osasis-{job.replace('_', '-')}": f"jobs.{job}:command" for job in jobs
    }


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_help_of_every_job_looks_the_same(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, function = SCRIPTS[script].partition(":")
    job = import_module(module)
    assert callable(getattr(job, function))
    flags = flags_of(job)
    shown = shown_help(flags, capsys, monkeypatch)

    groups = re.findall(r"^([a-z ]+):(?:\n  (\S.*))?$", shown, re.MULTILINE)
    titles = [title for title, _ in groups if title not in ("usage", "examples")]
    assert titles == list(dict.fromkeys(titles)), "a group twice"
    required = [name for name, info in flags.model_fields.items() if info.is_required()]
    assert (titles[0] == "required") is bool(required)
    assert titles[-1] == "general"
    assert all(sentence.endswith(".") for title, sentence in groups if title not in {*NO_GROUP, "usage", "examples"})
    assert not re.search(r"\b(tuple|list|dict)\[|\bNone\b|\b(str|int|float)\b|--no-dry-run|default: *\)", shown)
    assert shown.index("\nexamples:") < shown.index("Exit codes: 0 done")
    for flag, info in every_flag(flags):
        assert flag in shown
        assert info.description
        assert info.description.endswith("."), flag


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_examples_of_every_job_are_valid_commands(script: str) -> None:
    flags = flags_of(import_module(SCRIPTS[script].partition(":")[0]))
    assert 2 <= len(flags.examples) <= 3
    for example in flags.examples:
        assert isinstance(parse_flags(flags, shlex.split(example)), flags)


def test_the_version_is_that_of_the_distribution() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    for package in ("catalog", "cluster", "jobs", "osasis"):
        assert (ROOT / package / "py.typed").exists()
