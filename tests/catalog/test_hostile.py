"""Hostile ids, tags, notes and names of files: kept as data, or refused; never SQL, paths, markup or control codes."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.__main__ import main
from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.selector import ALIAS, STYLE_ID, SelectorError
from catalog.store import StyleCatalog
from catalog.view import Question
from cluster.storage import Storage, StorageError
from tests.support.styles import names, trained_style

_NASTY = st.sampled_from([
    "'; drop table events; --", "\" or 1=1 --", "../../etc/passwd", "<script>alert(1)</script>", "a\nb",
    "\x1b[2J\x1b[31m",
    "[red]x[/red]", "$value", "{0}", "%s", "\0", "", " ", "all", "tag:x", "a@1", "a@prod", "é" * 70, "\u202egpj",
])  # fmt: skip
_TEXT = _NASTY | st.text(max_size=30)
_FEW = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> StyleCatalog:
    storage = Storage.open(tmp_path_factory.mktemp("hostile"))
    catalog = StyleCatalog.open(storage)
    catalog.register(trained_style(storage, "monet", b"1"))
    return catalog


@_FEW
@given(_TEXT)
def test_a_note_is_kept_as_it_is_or_refused(catalog: StyleCatalog, text: str) -> None:
    try:
        note_id = catalog.add_note("monet", text)
    except CatalogUsageError:
        assert not text.strip() or "\0" in text
        return
    assert [note.text for note in catalog.notes("monet")] == [text]
    assert catalog.show("monet").notes == text
    catalog.remove_note("monet", note_id)
    assert catalog.notes("monet") == []


@_FEW
@given(_TEXT)
def test_names_are_well_formed_or_refused_everywhere(catalog: StyleCatalog, text: str) -> None:
    before = len(catalog.history("monet"))
    if not re.fullmatch(STYLE_ID, text):
        with pytest.raises(CatalogUsageError):
            catalog.tag("monet", add=[text])
    if not re.fullmatch(ALIAS, text):
        with pytest.raises(CatalogUsageError):
            catalog.set_alias("monet", text)
    for attempt in (catalog.resolve, catalog.delete, catalog.restore, catalog.remove_alias, catalog.notes):
        with pytest.raises((SelectorError, UnknownStyle, CatalogUsageError)):
            attempt(f"x{text}")
    assert catalog.history(text) == []
    assert catalog.aliases(text) == []
    with pytest.raises(CatalogUsageError):
        [*catalog.view().ask(Question((f"x{text}",)))]
    assert names(catalog.list(sort=[f"x{text}"])) == ["monet@1"]  # a metric that no style has
    assert len(catalog.history("monet")) == before


def test_what_is_printed_holds_no_control_codes(catalog: StyleCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    uri = catalog.storage.uri
    note_id = catalog.add_note("monet", "\x1b[2J[red]up\x07[/red]\u202e")
    for command in (
        ["list", "--columns", "style_id,notes"],
        ["show", "monet"],
        ["note", "list", "monet"],
        ["history", "monet"],
    ):
        assert main([*command, "--storage", uri]) == 0
        said = capsys.readouterr().out
        assert "[red]up" in said
        assert not {"\x1b", "\x07", "\u202e"} & {*said}
    assert main(["list", "--storage", uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["notes"] == "\x1b[2J[red]up\x07[/red]\u202e"
    catalog.remove_note("monet", note_id)


@pytest.mark.parametrize("name", ["it's", "50% b", "#1?x=y&z", "<script>", "ünï", "..x"])
def test_a_storage_may_have_any_name(tmp_path: Path, name: str) -> None:
    storage = Storage.open(tmp_path / name)
    catalog = StyleCatalog.open(storage)
    catalog.register(trained_style(storage, "monet", b"1"))
    catalog.register(trained_style(storage, "monet", b"2"))
    catalog.tag("monet", add=["x"])
    catalog.delete("monet@1")
    assert catalog.gc(timedelta(0)).files > 0
    assert names(catalog.resolve("tag:x")) == ["monet@2"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    catalog.export_bundle("all", str(tmp_path / f"{name}-out"))
    assert names(StyleCatalog.open(Storage.open(tmp_path / f"{name}-in")).import_bundle(str(tmp_path / f"{name}-out")))
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}-in", f"{name}-out"}


@pytest.mark.parametrize("name", ["new\nline", "a%20b", "\x1b[2J"])
def test_names_that_tables_cannot_have_are_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--storage", str(tmp_path / name)]) == 1
    assert "cannot hold tables" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["../../x.safetensors", "/etc/passwd", "{storage}/../victim", "{storage}"])
def test_gc_touches_no_file_outside_of_the_storage(tmp_path: Path, uri: str) -> None:
    storage = Storage.open(tmp_path / "storage")
    (tmp_path / "victim").write_text("precious")
    catalog = StyleCatalog.open(storage)
    catalog.register(trained_style(storage, "kept", b"1"))
    catalog.register(trained_style(storage, "monet", b"2", preview_uri=uri.format(storage=storage.uri)))
    catalog.delete("monet")
    try:
        catalog.gc(timedelta(0))
    except StorageError:
        pytest.fail("a name is no reason to stop")
    assert (tmp_path / "victim").read_text() == "precious"
    assert Path("/etc/passwd").exists()
    assert storage.exists(catalog.show("kept").checkpoint_uri.removeprefix(f"{storage.uri}/"))
