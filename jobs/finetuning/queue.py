"""Many trainings, one Ray Train run each, as many at once as the cluster holds."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from cluster.runtime.lease import LeaseHolder, lease
from cluster.runtime.resources import Resources
from cluster.storage import Storage
from jobs.finetuning.plan import StylePlan
from jobs.finetuning.saved_state import drop_damaged_snapshot
from jobs.finetuning.worker import train_style


@dataclass(frozen=True)
class Outcome:
    """How one style's training ended; ``error`` is None where it came to its end."""

    style_id: str
    error: str | None


@ray.remote(num_cpus=0)
class Board:
    """Where trainings report their progress."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, int, float]] = {}
        self._notes: list[str] = []

    def progress(self, style_id: str, done: int, total: int, loss: float) -> None:
        self._rows[style_id] = (done, total, loss)

    def note(self, text: str) -> None:
        self._notes.append(text)

    def rows(self) -> dict[str, tuple[int, int, float]]:
        return self._rows

    def take_notes(self) -> list[str]:
        """What was noted since this was last asked."""
        notes, self._notes = self._notes, []
        return notes


@ray.remote(num_cpus=0, max_retries=0)
def fit_style(
    plan: StylePlan, loop_config: dict[str, Any], resources: Resources, storage: Storage, max_failures: int, wait: bool
) -> Outcome:
    """Run one Ray Train run to its end, unless another job trains the same style.

    Holds no CPU: an actor or task that did would starve the training.
    """
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    run = storage.child("train", plan.run_name)
    trainer = TorchTrainer(
        train_style,
        train_loop_config=loop_config | {"run": run},
        scaling_config=ScalingConfig(num_workers=1, use_gpu=resources.gpus > 0, resources_per_worker=per_worker),
        run_config=RunConfig(
            # The same name resumes from the newest checkpoint.
            name=plan.run_name,
            storage_path=storage.child("train").path,
            storage_filesystem=None if storage.is_local else storage.filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    board, run_id = loop_config["board"], loop_config["run_id"]

    def told(holder: LeaseHolder) -> None:
        board.note.remote(f"{plan.style_id} waits for {holder}")

    try:
        with lease(
            storage, f"train/{plan.run_name}", run_id=run_id, job="train_styles", wait=wait, on_wait=told
        ) as held:
            if plan.folder.finished()[0] is None:  # else by the job that was waited for
                drop_damaged_snapshot(run, lambda text: board.note.remote(f"{plan.style_id}: {text}"))
                trainer.fit()
            held.check()
    except Exception as error:  # one style's failure is a row of the result, not the end of the others
        return Outcome(plan.style_id, "".join(traceback.format_exception_only(error)).strip())
    return Outcome(plan.style_id, None)


def run_queue(
    plans: list[StylePlan],
    submit: Callable[[StylePlan], "ray.ObjectRef[Outcome]"],
    limit: int,
    on_done: Callable[[StylePlan, Outcome], None],
    tick: Callable[[], None],
) -> None:
    """Keep at most ``limit`` trainings running; call ``on_done`` for each that ends and ``tick`` about every second."""
    waiting = list(plans)
    running: dict[Any, StylePlan] = {}
    while waiting or running:
        while waiting and len(running) < limit:
            plan = waiting.pop(0)
            running[submit(plan)] = plan
        ended, _ = ray.wait(list(running), timeout=1.0)
        for reference in ended:
            plan = running.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayError as error:
                outcome = Outcome(plan.style_id, str(error).splitlines()[0])
            on_done(plan, outcome)
        tick()
