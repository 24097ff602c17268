"""The catalog, the same on every kind of storage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pydantic import ValidationError

from catalog.__main__ import main
from catalog.columns import STYLE_COLUMNS, arrow_schema
from catalog.schema import NewStyle
from catalog.store import TABLE, CheckpointMismatch, StyleCatalog, UnknownStyle
from cluster.storage import Storage, StorageError
from tests.support.racing import race
from tests.support.s3_server import S3
from tests.support.styles import names, new_style

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def catalog(storage: Storage) -> StyleCatalog:
    return StyleCatalog.open(storage)


def test_a_catalog_nobody_wrote_to_is_empty(catalog: StyleCatalog) -> None:
    assert catalog.list() == []
    assert catalog.find("monet", "/nowhere") is None
    with pytest.raises(UnknownStyle, match="holds no styles"):
        catalog.resolve("all")
    assert catalog.storage.list_files() == []


def test_a_registered_style_is_read_back_whole(catalog: StyleCatalog) -> None:
    new = new_style(
        catalog.storage,
        "van-gogh-1889",
        metrics={"clip_direction": 0.25},
        clip_embedding=[0.5, -0.25],
        tags=["painting"],
        notes="first « light »",
        photo_uri="s3://x/y.png",
        software={"torch": "2.14.1"},
    )
    registered = catalog.register(new)
    assert (registered.version, registered.status) == (1, "ready")
    row = StyleCatalog.open(catalog.storage).show("van-gogh-1889@1")
    assert row == registered
    assert catalog.list() == [registered.model_copy(update={"clip_embedding": None})]
    assert row.model_dump(include=set(NewStyle.model_fields)) == new.model_dump()
    assert catalog.find("van-gogh-1889", new.checkpoint_uri) == registered
    assert catalog.find("van-gogh-1889", new.checkpoint_uri + "x") is None


def test_versions_count_up_and_repeats_are_found(catalog: StyleCatalog) -> None:
    first = catalog.register(new_style(catalog.storage, "monet", b"one"))
    second = catalog.register(new_style(catalog.storage, "monet", b"two", notes="again"))
    assert names([first, second]) == ["monet@1", "monet@2"]
    assert catalog.register(new_style(catalog.storage, "monet", b"one", run_id="run-2")) == first
    assert str(catalog.register(new_style(catalog.storage, "hokusai", b"one"))) == "hokusai@1"
    assert names(catalog.list()) == ["hokusai@1", "monet@1", "monet@2"]


def test_selections_are_resolved(catalog: StyleCatalog) -> None:
    storage = catalog.storage
    catalog.register(new_style(storage, "monet", b"1", tags=["painting"]))
    catalog.register(new_style(storage, "monet", b"2", tags=["painting", "water"]))
    catalog.register(new_style(storage, "hokusai", b"3", tags=["print", "water"]))
    assert names(catalog.resolve("all")) == ["hokusai@1", "monet@2"]
    assert names(catalog.resolve("monet@1, tag:water")) == ["monet@1", "hokusai@1", "monet@2"]
    assert names(catalog.resolve("monet,monet@2,all")) == ["monet@2", "hokusai@1"]
    assert str(catalog.show("monet")) == "monet@2"
    assert str(catalog.show("monet@1")) == "monet@1"
    with pytest.raises(UnknownStyle) as caught:
        catalog.resolve("monett,monet@7,monet@best,tag:watr,hokusai")
    for part in ("'monett' (there are: monet", "no version 7", "no alias 'best'", "'watr' (there are: water"):
        assert part in str(caught.value)


def test_only_whole_checkpoints_are_registered(catalog: StyleCatalog) -> None:
    good = new_style(catalog.storage, "monet")
    wrong = {"checkpoint_sha256": "a" * 64, "checkpoint_bytes": 3, "checkpoint_uri": good.checkpoint_uri + ".gone"}
    for field, value in wrong.items():
        with pytest.raises(CheckpointMismatch, match="monet was not registered"):
            catalog.register(good.model_copy(update={field: value}))
    assert catalog.list() == []


def test_the_table_is_what_others_rely_on(catalog: StyleCatalog) -> None:
    catalog.register(new_style(catalog.storage, "monet", metrics={"a": 1.0}))
    table = DeltaTable(catalog.storage.delta_uri(TABLE), storage_options=catalog.storage.delta_options())
    columns = {field.name: str(field.type) for field in table.to_pyarrow_dataset().schema}
    assert list(columns) == [field.name for field in arrow_schema(STYLE_COLUMNS)] == COLUMNS
    assert columns["metrics"] == "map<string, double>"
    (row,) = table.to_pyarrow_table().to_pylist()
    assert json.loads(row["train_config"]) == {"iterations": 200, "lr": 1e-4}


COLUMNS = [
    "style_id", "version", "status", "created_at", "base_name", "base_fingerprint",
    "checkpoint_uri", "checkpoint_sha256", "checkpoint_bytes", "checkpoint_format", "preset", "train_config",
    "reference_uri", "reference_sha256", "photo_uri", "preview_uri", "metrics", "clip_embedding", "tags", "notes",
    "license", "run_id", "train_seconds", "device", "software", "clip_encoder", "probe_set", "started_from",
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("style_id", "Monet"),
        ("style_id", "../up"),
        ("style_id", "all"),
        ("style_id", "a" * 64),
        ("style_id", "monet\n"),
        ("checkpoint_sha256", "xyz"),
        ("checkpoint_bytes", 0),
        ("tags", ["Bad Tag"]),
        ("metrics", {"a": float("nan")}),
        ("colour", "red"),
    ],
)
def test_impossible_rows_are_refused(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        NewStyle.model_validate(new_style(Storage.open(tmp_path), "monet").model_dump() | {field: value})


_REGISTER = """
import sys
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.racing import wait_for_start
from tests.support.styles import new_style

worker, storage = sys.argv[1], Storage.open(sys.argv[2])
catalog = StyleCatalog.open(storage)
styles = [new_style(storage, "shared", f"{worker} {i}".encode()) for i in range(2)]
styles += [new_style(storage, "same", b"same"), new_style(storage, f"own-{worker}", b"own")]
wait_for_start()
for style in styles:
    print(catalog.register(style), flush=True)
"""


def test_concurrent_writers_lose_and_repeat_nothing(catalog: StyleCatalog) -> None:
    """Four; the sixteen of test_scale.py are slow."""
    outputs = race(_REGISTER, [(worker, catalog.storage.uri) for worker in range(4)])
    told = [line for output in outputs for line in output.split()]

    expected = {f"shared@{n}" for n in range(1, 9)} | {"same@1"} | {f"own-{n}@1" for n in range(4)}
    assert set(told) == expected
    assert sorted(told) == sorted([*expected, *["same@1"] * 3])
    rows = catalog.list()
    assert sorted(names(rows)) == sorted(expected)
    assert len({row.checkpoint_sha256 for row in rows if row.style_id == "shared"}) == 8


def test_a_table_made_while_it_was_looked_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(tmp_path / "storage")

    def not_there_at_first(*given: Any, **options: Any) -> DeltaTable:
        monkeypatch.undo()
        StyleCatalog.open(storage).register(new_style(storage, "monet", b"another writer's"))
        raise TableNotFoundError("no files in log segment")

    style = new_style(storage, "monet", b"ours")
    monkeypatch.setattr("catalog.delta.DeltaTable", not_there_at_first)
    assert str(StyleCatalog.open(storage).register(style)) == "monet@2"


def test_silent_storage_is_an_error_not_an_empty_catalog(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="no answer"):
        StyleCatalog.open(Storage.open("s3://osasis-tests/x")).list()


def test_the_catalog_imports_neither_torch_nor_ray() -> None:
    script = "import sys, catalog, catalog.__main__; print({'ray', 'torch', 'osasis'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"


def test_command_line(catalog: StyleCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    uri = catalog.storage.uri
    assert main(["list", "--storage", uri]) == 0
    assert "no styles in" in capsys.readouterr().out
    catalog.register(new_style(catalog.storage, "monet", tags=["painting"], clip_embedding=[0.0, 1.0]))

    assert main(["list", "--storage", uri]) == 0
    assert "monet" in capsys.readouterr().out
    assert main(["list", "--storage", uri, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["style_id"], row["version"], "clip_embedding" in row) == ("monet", 1, False)
    assert main(["show", "monet@1", "--storage", uri]) == 0
    assert "2 numbers" in capsys.readouterr().out
    for chosen in (
        ["--tag", "painting"],
        ["monet", "--where", "version=1"],
        ["--latest"],
        ["all", "--since", "2020-01-01"],
    ):
        assert main(["show", *chosen, "--storage", uri, "--json"]) == 0
        assert [row["style_id"] for row in json.loads(capsys.readouterr().out)] == ["monet"]
    assert main(["show", "monet", "--where", "version>1", "--storage", uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["show", "--storage", uri]) == 2
    assert "say which styles" in capsys.readouterr().err
    assert main(["show", "tag:painting", "--storage", uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["style_id"] == "monet"

    assert main(["show", "monte", "--storage", uri]) == 2
    assert "monet" in capsys.readouterr().err
    assert main(["show", "a b", "--storage", uri]) == 2
    assert main(["list", "--storage", "gs://x"]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--no-such-flag"])
