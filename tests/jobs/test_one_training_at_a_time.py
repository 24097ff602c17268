"""A style that another job trains is left to it, or waited for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.runtime import lease as lease_module
from cluster.runtime.lease import LeaseHeld, lease
from cluster.storage import Storage
from jobs.finetuning import worker
from jobs.finetuning.plan import StylePlan, make_plan
from jobs.finetuning.style_queue import Task
from jobs.finetuning.styles_file import StylesFile
from tests.support.hostile import encoded, picture
from tests.support.styles import new_style
from tests.support.tiny import make_tiny_base


@pytest.fixture
def plan(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> StylePlan:
    monkeypatch.setattr(lease_module, "_GRACE_S", 0.0)
    monkeypatch.setattr(lease_module, "_POLL_S", 0.02)
    image = tmp_path / "reference.png"
    image.write_bytes(encoded(picture(20, 20), "PNG"))
    styles = {"id": "waves", "image": str(image)}
    file = {"base": str(make_tiny_base(tmp_path / "base")), "storage": storage.uri, "styles": [styles]}
    (style,) = make_plan(StylesFile.model_validate(file), None).styles
    return style


def train(plan: StylePlan, storage: Storage, notes: list[str], *, wait: bool) -> None:
    """What a worker does, in this process."""
    queue = SimpleNamespace(note=SimpleNamespace(remote=notes.append))
    settings = worker.WorkerSettings(
        base_location="", storage=storage, run_id="second", checkpoint_every_s=60, threads=1, wait=wait
    )
    worker.train_style(Task(plan, again=False), cast(Any, None), settings, worker.Reports(queue, "worker-0"))


def test_a_style_in_training_is_left_and_its_trainer_named(plan: StylePlan, storage: Storage) -> None:
    with (
        lease(storage, f"train/{plan.run_name}", run_id="first", job="train_styles", wait=False),
        pytest.raises(LeaseHeld, match=r"in use by run first \(train_styles\)"),
    ):
        train(plan, storage, [], wait=False)


def test_who_waits_finds_the_style_trained_and_trains_nothing(
    plan: StylePlan, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_train", lambda *args: pytest.fail("it trained the style again"))
    first = lease(storage, f"train/{plan.run_name}", run_id="first", job="train_styles", wait=False)
    first.__enter__()
    notes: list[str] = []

    class EndsWhenNoticed(list[str]):
        """The first job writes its result and ends as soon as the second says that it waits."""

        def append(self, text: str) -> None:
            notes.append(text)
            plan.folder.write("style.safetensors", b"weights")
            plan.folder.write_result(new_style(storage, "waves"))
            first.__exit__(None, None, None)

    train(plan, storage, EndsWhenNoticed(), wait=True)
    (note,) = notes
    assert note.startswith("waves waits for run first (train_styles)")
