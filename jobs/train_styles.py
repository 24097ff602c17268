"""Finetune styles: ``python jobs/train_styles.py --config styles.yaml``."""

import ray
from rich.console import Console
from rich.table import Table

from catalog.store import StyleCatalog
from cluster.commandline.cli import ExitCode, parse_flags, run_job
from cluster.runtime.connection import connect
from cluster.runtime.resources import Resources, capacity
from cluster.runtime.run_record import RunRecord, run_record
from jobs.finetuning.plan import StylePlan, TrainPlan, plan_command
from jobs.finetuning.progress import TrainingProgress
from jobs.finetuning.queue import Board, Outcome, fit_style, run_queue
from jobs.finetuning.styles_file import TrainStylesFlags

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    flags = parse_flags(TrainStylesFlags, further=plan_command)
    plan = plan_command(flags)
    _print_plan(plan)
    if flags.dry_run:
        return ExitCode.DONE
    if all(style.state == "done" for style in plan.styles):
        console.print("Everything is trained and in the catalog already; nothing to do.")
        return ExitCode.DONE
    config = {"base": plan.base_location, "styles": {s.run_name: s.config.model_dump(mode="json") for s in plan.styles}}
    with run_record(plan.storage, job="train_styles", config=config) as record:
        catalog = StyleCatalog.open(plan.storage)
        for style in plan.styles:
            if style.state == "register":
                _register(catalog, style, record)
        todo = [style for style in plan.styles if style.state == "train"]
        if todo:
            _train(todo, plan, flags, catalog, record)
        record.counts["already_done"] = sum(style.state == "done" for style in plan.styles)
        return record.exit_code


def _train(
    todo: list[StylePlan], plan: TrainPlan, flags: TrainStylesFlags, catalog: StyleCatalog, record: RunRecord
) -> None:
    resources = Resources(cpus=flags.cpus_per_worker, gpus=flags.gpus_per_worker)
    with connect(shared=[plan.storage]) as cluster, record.timed("train"):
        limit = min(flags.workers or len(todo), capacity(resources), len(todo))
        console.print(f"Ray at {cluster.address}: {len(todo)} to train, {limit} at a time, {resources} each.")
        board = Board.remote()  # type: ignore[attr-defined]

        def submit(style: StylePlan) -> "ray.ObjectRef[Outcome]":
            loop_config = {
                "plan": style,
                "storage": plan.storage,
                "base_location": plan.base_location,
                "run_id": record.run_id,
                "checkpoint_every": flags.checkpoint_every,
                "threads": max(1, int(flags.cpus_per_worker)),
                "board": board,
            }
            wait = flags.if_busy == "wait"
            return fit_style.remote(style, loop_config, resources, plan.storage, flags.max_failures, wait)

        with TrainingProgress(console, {style.style_id: style.config.iterations for style in todo}) as progress:

            def on_done(style: StylePlan, outcome: Outcome) -> None:
                if outcome.error is None:
                    _register(catalog, style, record)
                else:
                    record.counts["failed"] = record.counts.get("failed", 0) + 1
                    console.print(f"[red]{style.style_id} failed:[/red] {outcome.error}", markup=True)

            def tick() -> None:
                progress.show(ray.get(board.rows.remote()))
                for note in ray.get(board.take_notes.remote()):
                    console.print(note, markup=False)

            run_queue(todo, submit, limit, on_done, tick)


def _register(catalog: StyleCatalog, style: StylePlan, record: RunRecord) -> None:
    """The catalog's row, from the result that the training wrote last."""
    row = catalog.register(style.folder.read_result())
    record.counts["registered"] = record.counts.get("registered", 0) + 1
    console.print(f"[green]{row.style_id}@{row.version}[/green] registered, {row.train_seconds:.0f} s of training")


def _print_plan(plan: TrainPlan) -> None:
    table = Table(
        "style", "state", "iterations", "batch", "image", title=f"base {plan.base.name}, storage {plan.storage}"
    )
    for style in plan.styles:
        config = style.config
        table.add_row(style.style_id, style.state, str(config.iterations), str(config.batch_size), style.image_uri)
    console.print(table)
    for style in plan.styles:
        if style.note:
            console.print(f"{style.style_id}: {style.note}", style="yellow", markup=False)


def command() -> None:
    """The job as a console script."""
    run_job(main)


if __name__ == "__main__":
    command()
