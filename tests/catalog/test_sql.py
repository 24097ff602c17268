"""SQL over the catalog: what it answers, and what it cannot do."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.__main__ import main
from catalog.errors import CatalogUsageError
from catalog.manifest import SCHEMA, Manifest
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.styles import new_style


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> StyleCatalog:
    storage = Storage.open(tmp_path_factory.mktemp("sql"))
    catalog = StyleCatalog.open(storage)
    for number in range(3):
        catalog.register(new_style(storage, "monet", f"{number}".encode(), metrics={"structure": number / 2}))
    catalog.set_alias("monet@2", "prod")
    catalog.delete("monet@1")
    catalog.tag("monet@3", add=["calm"])
    return catalog


def test_the_view_is_what_is_asked(catalog: StyleCatalog) -> None:
    answer = catalog.sql("select version, tags, aliases, metrics['structure'] as s from styles order by version")
    assert answer.rows == [
        {"version": 2, "tags": [], "aliases": ["prod"], "s": 0.5},
        {"version": 3, "tags": ["calm"], "aliases": [], "s": 1.0},
    ]
    assert catalog.sql("select version, status from all_styles where status <> 'ready'").rows == [
        {"version": 1, "status": "deleted"}
    ]
    assert catalog.sql("select kind, count(*) n from events group by kind order by kind").rows == [
        {"kind": "alias-set", "n": 1}, {"kind": "deleted", "n": 1}, {"kind": "tag-added", "n": 1},
    ]  # fmt: skip
    assert "clip_embedding" not in catalog.sql("select * from styles").columns
    assert catalog.sql("select clip_embedding from styles limit 1").rows == [{"clip_embedding": None}]
    assert catalog.sql("select 1 as a, 2 as a").rows == [{"a": 1, "a_1": 2}]


def test_an_empty_catalog_has_the_same_tables(tmp_path: Path) -> None:
    empty = StyleCatalog.open(Storage.open(tmp_path))
    query = (
        "select style_id, metrics['structure'] from styles where list_contains(tags, 'x') and created_at > '2026-01-01'"
    )
    assert empty.sql(query).rows == []
    assert empty.sql("select count(*) n from all_styles, aliases, notes, events").rows == [{"n": 0}]


@pytest.mark.parametrize(
    "query",
    [
        "copy styles to '{file}'",
        "copy (select 1) to '{file}'",
        "attach '{file}' as other",
        "install httpfs",
        "load httpfs",
        "export database '{file}'",
        "create table t as select 1",
        "delete from events",
        "update all_styles set style_id = 'x'",
        "drop view styles",
        "set enable_external_access = true",
        "pragma database_list",
        "call pragma_version()",
        "select 1; select 2",
        "select 1; copy styles to '{file}'",
        "explain analyze select 1",
        "prepare p as select 1",
        "checkpoint",
        "",
        "select",
    ],
)
def test_only_one_select_is_taken(catalog: StyleCatalog, tmp_path: Path, query: str) -> None:
    with pytest.raises(CatalogUsageError, match=r"SELECT|read the query"):
        catalog.sql(query.format(file=tmp_path / "out"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "source",
    [
        "read_csv('{file}')", "read_text('{file}')", "read_blob('{file}')", "read_parquet('{file}')", "'{file}'",
        "read_json('{file}')", "glob('{folder}/*')", "sniff_csv('{file}')", "read_csv('https://example.org/x.csv')",
        "query('copy styles to ''{folder}/out''')", "query_table('{file}')", "parquet_metadata('{file}')",
        "delta_scan('{folder}')", "sqlite_scan('{file}', 't')", "options",
        "json_execute_serialized_sql('x')",
    ],
)  # fmt: skip
def test_no_select_reads_or_writes_files(catalog: StyleCatalog, tmp_path: Path, source: str) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CatalogUsageError):
        catalog.sql(f"select * from {source.format(file=tmp_path / 'secret.csv', folder=tmp_path)}")
    assert os.listdir(tmp_path) == ["secret.csv"]


def test_secrets_of_the_environment_are_out_of_reach(catalog: StyleCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-read")
    with pytest.raises(CatalogUsageError):
        catalog.sql("select getenv('AWS_SECRET_ACCESS_KEY')")
    said = catalog.sql("select name, value from duckdb_settings()").rows
    assert "not-to-be-read" not in json.dumps(said, default=str)
    with pytest.raises(CatalogUsageError):
        catalog.sql("select set_config('enable_external_access', 'true')")


def test_time_memory_and_rows_are_bounded(catalog: StyleCatalog) -> None:
    with pytest.raises(CatalogUsageError, match=r"more than 0\.3 seconds"):
        catalog.sql("select count(*) from range(100000000) a, range(100000) b where a.range + b.range = 7", seconds=0.3)
    with pytest.raises(CatalogUsageError, match="Out of Memory"):
        catalog.sql("select list(repeat(range::varchar, 1000)) from range(1000000)", memory_mb=64)
    answer = catalog.sql("select * from range(1000000)", most_rows=5)
    assert (len(answer.rows), answer.more) == (5, True)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_any_text_is_answered_or_refused(catalog: StyleCatalog, text: str) -> None:
    quoted = text.replace("'", "''")
    for query in (text, f"select '{quoted}' as said", f"select * from {text}"):
        try:
            catalog.sql(query)
        except CatalogUsageError:
            continue
    assert len(catalog.sql("select * from all_styles").rows) == 3


def test_the_command(catalog: StyleCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    uri = catalog.storage.uri
    query = "select style_id, version from styles order by version"
    assert main(["sql", query, "--storage", uri, "--csv"]) == 0
    assert capsys.readouterr().out == "style_id,version\nmonet,2\nmonet,3\n"
    assert main(["sql", query, "--storage", uri, "--json", "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == [{"style_id": "monet", "version": 2}]
    assert "only the first 1" in said.err
    assert main(["sql", "drop table events", "--storage", uri]) == 2


def test_the_newest_row_of_each_pair_of_a_manifest_counts(
    catalog: StyleCatalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Storage.open(tmp_path / "out")
    query = "select input_uri, status, run_id, structure from pictures order by input_uri"
    assert catalog.sql(query, output=output).rows == []

    def row(uri: str, status: str, run_id: str) -> dict[str, object]:
        pair = {"input_uri": uri, "style_id": "monet", "version": 3, "params_hash": "p"}
        return pair | {"status": status, "run_id": run_id}

    before = pa.schema([field for field in SCHEMA if field.name != "structure"])
    former = [row("a", "failed", "1"), row("b", "failed", "1"), row("c", "done", "1"), row("d", "failed", "1")]
    Manifest(output, schema=before).append(former)
    assert catalog.sql(query, output=output).rows[2] == {
        "input_uri": "c", "status": "done", "run_id": "1", "structure": None
    }  # fmt: skip
    Manifest(output).append([row("a", "done", "2"), row("b", "failed", "2")])
    assert [(r["input_uri"], r["status"], r["run_id"]) for r in catalog.sql(query, output=output).rows] == [
        ("a", "done", "2"), ("b", "failed", "2"), ("c", "done", "1"), ("d", "failed", "1")
    ]  # fmt: skip
    joined = "select tags, count(*) n from pictures join styles using (style_id, version) group by all"
    assert catalog.sql(joined, output=output).rows == [{"tags": ["calm"], "n": 4}]
    assert catalog.sql("select * from all_pictures", output=output).columns == SCHEMA.names
    own = (
        "select count(*) n from (from all_pictures qualify row_number() over (partition by input_uri, style_id, "
        "version, params_hash order by status = 'failed', run_id desc) = 1)"
    )
    assert catalog.sql(own, output=output).rows == [{"n": 4}]
    argv = ["sql", "select count(*) n from pictures", "--output", output.uri, "--storage", catalog.storage.uri]
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 4}]
