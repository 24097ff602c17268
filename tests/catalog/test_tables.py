"""The tables beneath: compaction beside readers and writers, checkpoints of the log, older and newer formats."""

import json
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from catalog.__main__ import main
from catalog.columns import STYLE_COLUMNS, arrow_schema
from catalog.delta import EVENTS
from catalog.errors import CatalogUsageError, NewerCatalog
from catalog.schema import StyleVersion
from catalog.store import TABLE, StyleCatalog
from catalog.tables import Log, _pause
from catalog.view import Question
from cluster.storage import Storage
from tests.support.styles import names, new_style

WEEK = timedelta(days=7)


def files_of(catalog: StyleCatalog) -> int:
    table = catalog.rows.open()
    assert table is not None
    return len(table.file_uris())


def test_compaction_changes_no_answer_and_disturbs_no_reader(storage: Storage) -> None:
    catalog = StyleCatalog.open(storage)
    for number in range(5):
        catalog.register(new_style(storage, "monet", f"{number}".encode(), clip_embedding=[float(number)]))
        catalog.tag(f"monet@{number + 1}", add=["calm"])
    reader = catalog.view()
    before = catalog.resolve("monet@1,monet@5")
    done = catalog.optimize(WEEK)
    assert [(table.table, table.files_before, table.files_after) for table in done] == [(TABLE, 5, 1), (EVENTS, 5, 1)]
    assert files_of(catalog) == 1
    assert catalog.resolve("monet@1,monet@5") == before
    assert len([*reader.ask(Question(("version", "clip_embedding")))]) == 5  # from the old files
    assert [table.files_after for table in catalog.optimize(WEEK)] == [1, 1]
    assert str(catalog.register(new_style(storage, "monet", b"next"))) == "monet@6"
    with pytest.raises(CatalogUsageError, match="an hour"):
        catalog.optimize(timedelta(minutes=5))


def test_an_empty_catalog_is_optimized_by_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "--storage", str(tmp_path), "--retain", "2h"]) == 0
    assert capsys.readouterr().out == "no tables yet\n"
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_begins_during_compaction_is_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    compact = Log.compact

    def then_the_first_row(log: Log) -> dict[str, int] | None:
        done = compact(log)
        if not catalog.list():
            StyleCatalog.open(catalog.storage).register(new_style(catalog.storage, "monet"))
        return done

    monkeypatch.setattr(Log, "compact", then_the_first_row)
    assert catalog.optimize(WEEK) == []
    assert names(catalog.list()) == ["monet@1"]
    assert [table.files_after for table in catalog.optimize(WEEK)] == [1]


def test_writers_and_readers_go_on_beside_compaction(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    styles = {name: [new_style(storage, name, f"{n}".encode()) for n in range(8)] for name in ("one", "two")}
    problems: list[Exception] = []
    done = threading.Event()

    def attempt(work: "list[object]") -> None:
        try:
            for step in work:
                assert callable(step)
                step()
        except Exception as error:  # told to the test below
            problems.append(error)

    def write(name: str) -> None:
        catalog = StyleCatalog.open(storage)
        attempt([lambda style=style: catalog.register(style) for style in styles[name]])

    def read() -> None:
        catalog = StyleCatalog.open(storage)
        seen = 0
        while not done.is_set():
            rows = catalog.list()
            assert len(rows) >= seen
            seen = len(rows)

    writers = [threading.Thread(target=write, args=[name]) for name in styles]
    reader = threading.Thread(target=attempt, args=[[read]])
    for thread in (*writers, reader):
        thread.start()
    while any(writer.is_alive() for writer in writers):
        attempt([lambda: StyleCatalog.open(storage).optimize(WEEK)])
    done.set()
    for thread in (*writers, reader):
        thread.join()
    assert problems == []
    assert names(StyleCatalog.open(storage).list()) == [f"{name}@{n}" for name in ("one", "two") for n in range(1, 9)]


def test_the_log_gets_checkpoints_by_itself(tmp_path: Path) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    catalog.register(new_style(catalog.storage, "monet"))
    for number in range(20):
        catalog.tag("monet", add=[f"tag-{number}"])
    assert list((tmp_path / EVENTS / "_delta_log").glob("*.checkpoint.parquet"))
    assert len(catalog.show("monet").tags) == 20


def old_catalog(storage: Storage) -> None:
    """As version 1 wrote it: no events, no ``clip_encoder`` nor anything after it, no settings."""
    after = arrow_schema(STYLE_COLUMNS).get_field_index("clip_encoder")
    schema = pa.schema([arrow_schema(STYLE_COLUMNS).field(i) for i in range(after)])
    row = StyleVersion.of(new_style(storage, "monet", b"1", tags=["old"], clip_embedding=[1.0]), 1).to_row()
    row = {name: row[name] for name in schema.names}
    write_deltalake(
        storage.delta_uri(TABLE), pa.Table.from_pylist([row], schema=schema), storage_options=storage.delta_options()
    )


def test_a_catalog_of_an_older_version_opens_and_is_brought_up_to_date_by_a_write(storage: Storage) -> None:
    old_catalog(storage)
    catalog = StyleCatalog.open(storage)
    assert names(catalog.list()) == ["monet@1"]
    row = catalog.show("monet")
    assert (row.tags, row.clip_embedding, row.clip_encoder, row.aliases) == (["old"], [1.0], None, [])
    assert catalog.sql("select clip_encoder, probe_set, tags from styles").rows == [
        {"clip_encoder": None, "probe_set": None, "tags": ["old"]}
    ]
    catalog.set_alias("monet@1", "prod")
    assert str(catalog.register(new_style(storage, "monet", b"2", clip_encoder="x"))) == "monet@2"
    assert [row.clip_encoder for row in catalog.list()] == [None, "x"]
    assert names(catalog.resolve("monet@prod")) == ["monet@1"]
    assert names(StyleCatalog.open(storage).list()) == ["monet@1", "monet@2"]


@pytest.mark.parametrize("table", [TABLE, EVENTS])
def test_a_newer_format_is_refused_with_the_version_needed(
    tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage.open(tmp_path)
    catalog = StyleCatalog.open(storage)
    style = new_style(storage, "monet")
    catalog.register(style)
    catalog.tag("monet", add=["x"])
    settings = {"style-catalog.format": "4", "style-catalog.needed": "7.1.0"}
    DeltaTable(storage.delta_uri(table)).alter.set_table_properties(settings, raise_if_not_exists=False)
    for attempt in (catalog.list, lambda: catalog.register(style), lambda: catalog.tag("monet", add=["y"])):
        with pytest.raises(NewerCatalog, match=r"format 4.*reads up to 3.*7\.1\.0"):
            attempt()
    assert main(["list", "--storage", str(tmp_path)]) == 1
    assert "osasis-on-ray 7.1.0" in capsys.readouterr().err


def test_columns_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    catalog = StyleCatalog.open(storage)
    catalog.register(new_style(storage, "monet", b"1"))
    row = StyleVersion.of(new_style(storage, "monet", b"2"), 2).to_row() | {"colour": "red"}
    later = pa.Table.from_pylist([row], schema=arrow_schema(STYLE_COLUMNS).append(pa.field("colour", pa.string())))
    write_deltalake(storage.delta_uri(TABLE), later, mode="append", schema_mode="merge")
    assert names(catalog.list()) == ["monet@1", "monet@2"]
    assert str(catalog.register(new_style(storage, "monet", b"3"))) == "monet@3"
    assert json.loads(json.dumps(catalog.sql("select colour from styles order by version").rows)) == [
        {"colour": None}, {"colour": "red"}, {"colour": None},
    ]  # fmt: skip


def test_who_has_lost_a_commit_often_pauses_less() -> None:
    """Else those who have just begun would come first for ever."""
    longest = {lost: max(_pause(SimpleNamespace(attempt_number=lost)) for _ in range(20)) for lost in (1, 10, 100)}  # type: ignore[arg-type]
    assert all(seconds <= 0.5 / lost for lost, seconds in longest.items())
