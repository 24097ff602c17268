"""The command line of the catalog as a program: what it loads, and how it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.__main__ import COMMANDS, main
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.styles import new_style

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    said = capsys.readouterr().out
    assert f"style-catalog {name}" in said
    assert "--storage" in said


def test_the_commands_are_listed_and_others_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    for wrong in ([], ["lst"], ["../list"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)


def test_help_loads_no_table_engine() -> None:
    script = (
        "import sys, catalog.__main__ as program\n"
        "try: program.main(['list', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'deltalake', 'duckdb', 'pyarrow', 'boto3', 'pydantic', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_list_loads_little(tmp_path: Path) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    catalog.register(new_style(catalog.storage, "monet"))
    script = (
        "import sys, catalog.__main__ as program\n"
        "assert program.main(['list', '--csv', '--where', 'version=1', '--storage', sys.argv[1]]) == 0\n"
        "heavy = {'pyarrow', 'numpy', 'pandas', 'pydantic', 'boto3', 'rich', 'torch', 'ray'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=_ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert done.stdout.splitlines()[1].startswith("monet,1,")


@pytest.mark.parametrize("terminal", ["ascii", "latin-1", "closed"])
def test_whatever_the_terminal_can_show_the_exit_code_is_the_same(tmp_path: Path, terminal: str) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    catalog.register(new_style(catalog.storage, "monet", notes="café… → 3×"))
    command = [sys.executable, "-m", "catalog", "list", "--columns", "style_id,notes", "--storage", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONIO")}
    if terminal == "closed":
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(command, cwd=_ROOT, env=env, check=False, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
    else:
        env["PYTHONIOENCODING"] = terminal
        done = subprocess.run(command, cwd=_ROOT, env=env, check=False, capture_output=True)
        shown = {"ascii": "cafe... -> 3x", "latin-1": "café... -> 3×"}[terminal]
        assert shown in done.stdout.decode("latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
