"""Tables whose files are missing or damaged, or would run code: told in a sentence, with how to mend them."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from deltalake import DeltaTable

from catalog.__main__ import main
from catalog.errors import DamagedTable
from catalog.manifest import Manifest
from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.streaming.command import StylizeFlags, resolve
from tests.support.styles import new_style
from tests.support.stylize_case import Case


def _log(table: Path, number: int) -> Path:
    return table / "_delta_log" / f"{number:020}.json"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _data(table: Path) -> Path:
    return sorted(table.glob("*.parquet"))[0]


def _without_log(table: Path) -> None:
    shutil.rmtree(table / "_delta_log")
    (table / "_delta_log").write_text("x")


HARMS: dict[str, Callable[[Path], object]] = {
    "a commit cut short": lambda table: _cut(_log(table, 1)),
    "a commit of other bytes": lambda table: _log(table, 1).write_bytes(b"\xff\x00 not JSON"),
    "the first commit gone": lambda table: _log(table, 0).unlink(),
    "a commit in the middle gone": lambda table: _log(table, 1).unlink(),
    "a file in place of the log": _without_log,
    "a data file gone": lambda table: _data(table).unlink(),
    "a data file cut short": lambda table: _cut(_data(table)),
    "a data file emptied": lambda table: _data(table).write_bytes(b""),
    "a data file of other bytes": lambda table: _data(table).write_bytes(b"x" * _data(table).stat().st_size),
}


def _harmed(tmp_path: Path, harm: str, table: str = "catalog") -> StyleCatalog:
    catalog = StyleCatalog.open(Storage.open(tmp_path / "storage"))
    for number in range(3):
        catalog.register(new_style(catalog.storage, "monet", f"{number}".encode()))
    for tag in ("a", "b", "c"):
        catalog.tag("monet", add=[tag])
    HARMS[harm](tmp_path / "storage" / table)
    return catalog


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("table", ["catalog", "catalog_events"])
def test_a_damaged_catalog_is_told_in_a_sentence_and_verify_says_how_to_mend_it(
    tmp_path: Path, harm: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = _harmed(tmp_path, harm, table)
    with pytest.raises(DamagedTable):
        catalog.list()
    assert main(["list", "--storage", catalog.storage.uri]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert f"/{table}" in told
    assert "verify" in told
    assert main(["verify", "--storage", catalog.storage.uri, "--json"]) == 3
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings
    for finding in findings:
        assert finding["kind"] in ("table-missing", "table-damaged")
        assert f"/{table}/" in finding["uri"]
        assert "restore" in finding["message"]


def test_an_emptied_commit_that_delta_passes_over_in_silence_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    for number in range(3):
        catalog.register(new_style(catalog.storage, "monet", f"{number}".encode()))
    _log(tmp_path / "catalog", 1).write_bytes(b"")
    assert main(["verify", "--storage", str(tmp_path)]) == 3
    assert "00000000000000000001.json: is empty" in capsys.readouterr().out


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_manifest_is_a_problem_of_its_output(tmp_path: Path, harm: str) -> None:
    case = Case.make(Storage.open(tmp_path / "store"), tmp_path, styles=1)
    case.add_pictures(1)
    row = {"style_id": "style-0", "version": 1, "params_hash": "0" * 16, "status": "done"}
    for number in range(3):
        case.manifest().append([row | {"input_uri": f"{case.root}/in/{number}.png"}])
    HARMS[harm](tmp_path / "store" / "out" / "manifest")
    with pytest.raises(ConfigError) as caught:
        resolve(StylizeFlags(**case.flags, dry_run=True))
    (told,) = str(caught.value).splitlines()
    assert "--output" in told
    assert "/out/manifest" in told
    assert "missing or damaged" in told


def test_a_table_whose_column_is_an_extension_type_is_refused_by_name(tmp_path: Path) -> None:
    """Arrow would make the type by code that is registered under its name, as Ray registers one of pickled objects."""
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    catalog.register(new_style(catalog.storage, "monet"))
    Manifest(catalog.storage).append([{"input_uri": "x", "status": "done"}])
    for table in ("catalog", "manifest"):
        log = _log(tmp_path / table, 0)
        extension = r"{\"ARROW:extension:name\":\"ray.data.arrow_pickled_object\"}"
        log.write_text(log.read_text().replace(r"\"metadata\":{}", rf"\"metadata\":{extension}", 1))
        assert "ray.data" in DeltaTable(str(tmp_path / table)).schema().to_json()
    with pytest.raises(DamagedTable, match=r"ray\.data\.arrow_pickled_object"):
        catalog.list()
    with pytest.raises(DamagedTable, match=r"ray\.data\.arrow_pickled_object"):
        Manifest(catalog.storage).rows()


def test_pickled_objects_within_the_files_of_a_table_are_not_run(tmp_path: Path) -> None:
    """A Parquet file may name an extension type that the table's own schema does not."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray.cloudpickle
    import ray.data
    from ray.air.util.object_extensions.arrow import ArrowPythonObjectType

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "executed",))

    catalog = StyleCatalog.open(Storage.open(tmp_path / "storage"))
    catalog.register(new_style(catalog.storage, "monet"))
    manifest = Manifest(catalog.storage)
    manifest.append([{"input_uri": "x", "style_id": "monet", "version": 1, "params_hash": "p", "status": "done"}])
    for table in ("catalog", "manifest"):
        (file,) = (tmp_path / "storage" / table).glob("*.parquet")
        data = pq.read_table(file)
        name = "notes" if table == "catalog" else "error"
        pickled = pa.array([ray.cloudpickle.dumps(Harm())], pa.large_binary())
        column = pa.ExtensionArray.from_storage(ArrowPythonObjectType(), pickled)
        pq.write_table(data.set_column(data.schema.get_field_index(name), name, column), file)
        assert "ray.data" in str(pq.read_schema(file))
    for attempt in (
        catalog.list,
        lambda: catalog.sql("select * from styles"),
        lambda: catalog.register(new_style(catalog.storage, "monet", b"2")),
        manifest.rows,
        lambda: manifest.decided(["x"], ["p"]),
        lambda: manifest.picture("x"),
    ):
        with suppress(DamagedTable):
            attempt()
        assert not (tmp_path / "executed").exists()
