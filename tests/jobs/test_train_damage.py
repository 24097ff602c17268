"""Damaged files of a training cost iterations, never the training."""

import io
from pathlib import Path

import pytest
import torch

from catalog.__main__ import main
from catalog.store import StyleCatalog
from catalog.style_folder import CHECKPOINT, RESULT, StyleFolder
from cluster.storage import Storage, StorageError
from jobs.finetuning.plan import StylePlan, make_plan
from jobs.finetuning.saved_state import StateSaver, newest_state, remove_states
from jobs.finetuning.styles_file import StylesFile
from tests.support.hostile import encoded, picture
from tests.support.jobs_run import run_job
from tests.support.styles import finished_training
from tests.support.tiny import make_tiny_base


def _state(iteration: int) -> bytes:
    buffer = io.BytesIO()
    torch.save({"training": {"iteration": iteration}, "seconds": 1.0}, buffer)
    return buffer.getvalue()


def test_a_damaged_state_gives_way_to_the_one_before_and_at_last_to_a_new_beginning(storage: Storage) -> None:
    run, said = storage.child("train", "monet-0"), list[str]()
    assert newest_state(run, said.append) is None
    for i in (1, 2, 3):
        run.write_bytes(f"state-0000000{i}.pt", _state(i))
    found = newest_state(run, said.append)
    assert (found and found["training"], said) == ({"iteration": 3}, [])
    run.write_bytes("state-00000003.pt", _state(3)[:700])
    run.write_bytes("state-00000002.pt", b"")
    found = newest_state(run, said.append)
    assert (found and found["training"], len(said)) == ({"iteration": 1}, 2)
    assert "state-00000003.pt: damaged" in said[0]
    assert "the one before is used" in said[0]
    run.write_bytes("state-00000001.pt", _state(1)[:-30])
    assert newest_state(run, said.append) is None
    assert "starts over" in said[-1]


def test_states_are_saved_beside_the_training_and_two_are_kept(storage: Storage) -> None:
    run, said = storage.child("train", "monet-0"), list[str]()
    saver = StateSaver(run, 0, said.append)
    weights = torch.zeros(3)
    for i in range(1, 5):
        assert saver.due
        weights += 1
        saver.save(i, {"training": {"weights": weights}})
        weights += 0.5  # the training goes on while the state is written
        saver.close()
    assert run.list_files() == ["state-00000003.pt", "state-00000004.pt"]
    found = newest_state(run, said.append)
    assert found is not None
    assert found["training"]["weights"].tolist() == [5.5] * 3
    assert not StateSaver(run, 60, said.append).due
    remove_states(run)
    assert (run.list_files(), said) == ([], [])


def test_a_state_that_cannot_be_stored_costs_no_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    saver = StateSaver(Storage.open(tmp_path / "file" / "below"), 0, said.append)
    saver.save(1, {})
    saver.close()
    assert "state-00000001.pt was not saved" in said[0]


@pytest.fixture
def plan_of(tmp_path: Path) -> "tuple[StylesFile, StylePlan]":
    base = make_tiny_base(tmp_path / "base", bank=False)
    (tmp_path / "x.png").write_bytes(encoded(picture(), "PNG"))
    given = {
        "base": str(base),
        "storage": str(tmp_path / "out"),
        "styles": [{"id": "monet", "image": str(tmp_path / "x.png")}],
    }
    styles = StylesFile.model_validate(given)
    return styles, make_plan(styles, None).styles[0]


@pytest.mark.parametrize("content", [b"", b'{"style_id": "mo', b"[]", b"\xff\xfe"])
def test_a_damaged_result_means_training_again_for_its_style_alone(
    plan_of: "tuple[StylesFile, StylePlan]", content: bytes
) -> None:
    styles, plan = plan_of
    plan.folder.place.write_bytes(RESULT, content)
    with pytest.raises(StorageError, match="not a training's result"):
        plan.folder.read_result()
    (again,) = make_plan(styles, None).styles
    assert again.state == "train"
    assert "result.json" in again.note
    assert "trained again" in again.note


@pytest.mark.parametrize("harm", ["gone", "cut"])
@pytest.mark.parametrize("registered", [False, True])
def test_a_checkpoint_that_is_gone_means_training_again(
    plan_of: "tuple[StylesFile, StylePlan]", harm: str, registered: bool
) -> None:
    styles, plan = plan_of
    storage = Storage.open(styles.storage)
    style = finished_training(storage, "monet", b"weights", key=plan.train_key)
    plan.folder.write_result(style)
    assert make_plan(styles, None).styles[0].state == "register"
    if registered:
        StyleCatalog.open(storage).register(style)
        assert make_plan(styles, None).styles[0].state == "done"
    if harm == "gone":
        plan.folder.place.delete(CHECKPOINT)
    else:
        plan.folder.write(CHECKPOINT, b"wei")
    (again,) = make_plan(styles, None).styles
    assert again.state == "train"
    assert CHECKPOINT in again.note


@pytest.mark.slow
def test_everything_damaged_the_same_command_trains_the_same_style(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_base(tmp_path / "base")
    storage = Storage.open(tmp_path / "out")
    (tmp_path / "x.png").write_bytes(encoded(picture(), "PNG"))
    flags = ("--base", base, "--storage", storage.uri, "--id", "style-0", "--image", tmp_path / "x.png")
    flags = (*flags, "--train.iterations", 6, "--checkpoint-seconds", 0)
    run_job("train_styles", *flags)
    (row,) = StyleCatalog.open(storage).list()
    folder = StyleFolder(Storage.open(row.checkpoint_uri.rpartition("/")[0]))
    folder.place.delete(CHECKPOINT)
    folder.place.write_bytes(RESULT, b"")
    storage.write_bytes(f"train/style-0-{folder.place.uri.rpartition('/')[2]}/state-00000004.pt", b"PK damaged")
    output = run_job("train_styles", *flags)
    assert "it is trained again" in output
    assert "damaged" in output
    assert [str(version) for version in StyleCatalog.open(storage).list()] == ["style-0@1"]  # the same weights
    assert main(["verify", "--storage", storage.uri]) == 0
