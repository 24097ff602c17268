"""The stylize job on local disk and on S3: one outcome for every input and style, and nothing done twice."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import ray

import jobs.streaming.execution
import jobs.stylize
from catalog.manifest import Manifest
from catalog.output_names import relative_key
from cluster.commandline.cli import ConfigError, ExitCode
from cluster.storage import Storage
from jobs.streaming.stylizing import Stylizer
from tests.support.hostile import encoded, hostile_files, picture
from tests.support.stylize_case import Case
from tests.support.tiny import make_tiny_base

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not import tests


@pytest.fixture
def case(storage: Storage, tmp_path: Path) -> Case:
    return Case.make(storage, tmp_path)


@pytest.fixture
def local_case(tmp_path: Path) -> Case:
    return Case.make(Storage.open(tmp_path / "root"), tmp_path)


def refuse_to_connect() -> None:
    raise AssertionError("Ray was asked for")


@pytest.mark.usefixtures("ray_cluster")
def test_hostile_inputs_each_have_one_outcome(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = hostile_files()
    case.add({name: data for name, (data, _) in hostile.items()})
    monkeypatch.setattr("sys.argv", case.argv(workers=2))
    assert jobs.stylize.main() == ExitCode.RECORDED_FAILURES
    rejected = sum(kind is not None for _, kind in hostile.values())
    statuses = case.check_consistent()
    assert statuses == {"done": 2 * (len(hostile) - rejected), "rejected": 2 * rejected}
    for row in case.rows():
        name = row["input_uri"].removeprefix(case.root.child_uri("in") + "/")
        assert row["error_type"] == hostile[name][1]
        assert row["key"] == relative_key(name)
        assert row["seed"] == 0
        if row["status"] == "done":
            transform = json.loads(row["transform"])
            assert (row["width"], row["height"]) == (transform["original_width"], transform["original_height"])
        else:
            assert row["error"]
    sizes = {row["key"]: (row["width"], row["height"], json.loads(row["transform"] or "{}")) for row in case.rows()}
    assert sizes["rotated.jpg"][:2] == (40, 48)
    assert sizes["rotated.jpg"][2]["orientation"] == 6

    monkeypatch.setattr(jobs.streaming.execution, "connect", refuse_to_connect)
    before = case.rows()
    assert jobs.stylize.main() == ExitCode.RECORDED_FAILURES, "earlier rejections still count"
    assert case.rows() == before
    records = [json.loads(case.root.read_bytes(f"runs/{name}")) for name in case.root.list_files("runs")]
    assert [record["outcome"] for record in records] == ["done-with-failures"] * 2
    assert [record["counts"]["decided_before"] for record in records] == [0, 2 * len(hostile)]


@pytest.mark.usefixtures("ray_cluster")
def test_only_what_is_missing_is_done(local_case: Case) -> None:
    case = local_case
    case.add_pictures(5)
    first = case.run(styles="style-0", limit=3)
    assert (first.inputs, first.now) == (3, {"done": 3})
    second = case.run(styles="style-0,style-1")
    assert second.before == {"done": 3}
    assert second.now == {"done": 7}
    assert case.check_consistent() == {"done": 10}


@pytest.mark.usefixtures("ray_cluster")
def test_a_table_of_uris(case: Case) -> None:
    case.add_pictures(3)
    uris = [case.root.child_uri(f"in/0000{i}.png") for i in (0, 1, 1, 7)]
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"photo": uris}), sink)
    case.root.write_bytes("list.parquet", sink.getvalue().to_pybytes())
    tally = case.run(input=case.root.child_uri("list.parquet"), input_column="photo", styles="style-1")
    assert (tally.inputs, tally.duplicates, tally.now) == (4, 1, {"done": 2, "failed": 1})
    assert case.check_consistent() == {"done": 2, "failed": 1}
    (failed,) = (row for row in case.rows() if row["status"] == "failed")
    assert (failed["input_uri"], failed["error_type"]) == (uris[3], "unreadable")


class Fussy(Stylizer):
    """Fails for one input."""

    def results(self, variant: Any, batch: Any) -> Any:
        if any(row["key"] == "00002.png" for row in batch.rows):
            raise RuntimeError("not this one")
        return super().results(variant, batch)


@pytest.mark.usefixtures("ray_cluster")
def test_failures_are_taken_up_again_only_on_request(local_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case = local_case
    case.add_pictures(5)
    assert case.run(Fussy).now == {"done": 8, "failed": 2}
    assert {row["error"] for row in case.rows() if row["status"] == "failed"} == {"not this one"}
    with monkeypatch.context() as patch:
        patch.setattr(jobs.streaming.execution, "connect", refuse_to_connect)
        again = case.run()
        assert (again.before, again.now) == ({"done": 8, "failed": 2}, {})
    assert case.run(retry_failed=True).now == {"done": 2}
    assert case.check_consistent() == {"done": 10}


def problems(case: Case, **flags: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        case.run(**flags)
    return {problem.place: problem.message for problem in caught.value.problems}


def test_problems_are_told_all_at_once(local_case: Case) -> None:
    found = problems(local_case, styles="style-7,style-0@9", output=local_case.flags["input"] + "/out", base="nowhere")
    assert set(found) == {"--styles", "--input", "--output", "--base"}
    assert "style-7" in found["--styles"]
    assert "version 9" in found["--styles"]
    assert "no pictures" in found["--input"]
    assert "inside" in found["--output"]
    assert "base.json" in found["--base"]


def test_a_style_of_another_base_is_refused(local_case: Case, tmp_path: Path) -> None:
    local_case.add_pictures(1)
    other = make_tiny_base(tmp_path / "other", seed=5, bank=False)
    found = problems(local_case, base=str(other))
    assert set(found) == {"--styles style-0@1", "--styles style-1@1"}
    assert "was trained on base tiny" in found["--styles style-0@1"]
    assert "say where it is" in problems(local_case, base=None)["--base"]


def test_unreachable_storage_is_told_before_work(local_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    local_case.add_pictures(1)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        unused_port = held.getsockname()[1]
    for name, value in {"ENDPOINT_URL": f"http://127.0.0.1:{unused_port}", "ACCESS_KEY_ID": "x", "REGION": "x",
                        "SECRET_ACCESS_KEY": "very-secret"}.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    found = problems(local_case, output="s3://bucket/out")
    assert set(found) == {"--output"}
    assert "no answer" in found["--output"]
    assert "very-secret" not in found["--output"]


def test_a_missing_column_is_named(local_case: Case) -> None:
    local_case.root.write_bytes("list.csv", b"a,b\n1,2\n")
    found = problems(local_case, input=local_case.root.child_uri("list.csv"))
    assert "no column uri, only a, b" in found["--input-column"]


def test_other_parameters_do_not_overwrite(local_case: Case) -> None:
    local_case.add_pictures(1)
    row = {"input_uri": "x", "style_id": "style-1", "version": 1, "params_hash": "other", "status": "done"}
    Manifest(local_case.root.child("out")).append([row])
    assert "style-1@1 made with other parameters" in problems(local_case)["--output"]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--encode-steps=600", "no integer stride"),
        ("--batch-size=0", "greater than 0"),
        ("--max-pixels=999999999", "less than or equal"),
        ("--fit=stretch", "'squash'"),
        ("--unknown=1", "unknown"),
    ],
)
def test_bad_flags(local_case: Case, monkeypatch: pytest.MonkeyPatch, flag: str, said: str) -> None:
    monkeypatch.setattr("sys.argv", [*local_case.argv(), flag])
    with pytest.raises(ConfigError) as caught:
        jobs.stylize.main()
    assert said in str(caught.value)


def test_dry_run_touches_nothing(
    local_case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local_case.add({"a.png": encoded(picture(), "PNG")})
    before = local_case.root.list_files()
    monkeypatch.setattr(jobs.streaming.execution, "connect", refuse_to_connect)
    monkeypatch.setattr("sys.argv", [*local_case.argv(), "--dry-run"])
    assert jobs.stylize.main() == ExitCode.DONE
    assert local_case.root.list_files() == before
    assert "style-0@1, style-1@1" in capsys.readouterr().out
