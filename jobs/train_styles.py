"""Finetune styles: ``python jobs/train_styles.py --config styles.yaml``."""

import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.store import StyleCatalog
from catalog.style_folder import STATES
from cluster.commandline.cli import ExitCode, parse_flags, run_job
from cluster.runtime.connection import connect
from cluster.runtime.elastic import Elastic, NoNodeLeft
from cluster.runtime.lease import forget
from cluster.runtime.outlook import foreseen, outlook
from cluster.runtime.resources import nodes
from cluster.runtime.run_record import RunRecord, run_record
from cluster.runtime.waiting import asking, room_for
from cluster.storage import Storage
from jobs.finetuning.fleet import Fleet
from jobs.finetuning.forecast import Measured, forecast
from jobs.finetuning.plan import StylePlan, TrainPlan, plan_command
from jobs.finetuning.progress import TrainingProgress
from jobs.finetuning.saved_state import remove_states, states_of
from jobs.finetuning.style_queue import QueueActor, Report
from jobs.finetuning.styles_file import TrainStylesFlags
from jobs.finetuning.worker import WorkerSettings

_TICK_S = 0.5

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    flags = parse_flags(TrainStylesFlags, further=plan_command)
    plan = plan_command(flags)
    _print_plan(plan)
    todo = [style for style in plan.styles if style.state == "train"]
    how = {"memory": flags.memory, "processes": flags.processes_per_style if flags.processes_per_style > 1 else None}
    costs = forecast(plan.storage, plan.base_location, [style.config for style in todo], how) if todo else None
    if costs or flags.dry_run:
        console.print(str(costs or "No run with these settings on this storage says yet what they take."))
    if flags.dry_run:
        resources, room = foreseen(flags)
        flags.check_memory(resources.device)
        console.print(f"room for {room}", markup=False)
        return ExitCode.DONE
    _remove_leftovers(plan)
    if all(style.state == "done" for style in plan.styles):
        console.print("Everything is trained and in the catalog already; nothing to do.")
        return ExitCode.DONE
    styles = {s.run_name: s.config.model_dump(mode="json") for s in plan.styles}
    config = {"base": plan.base_location, "styles": styles} | how
    with run_record(plan.storage, job="train_styles", config=config) as record:
        catalog = StyleCatalog.open(plan.storage)
        for style in plan.styles:
            if style.state == "register":
                _register(catalog, style, record)
        record.metrics |= costs.metrics() if costs else {}
        if todo:
            _train(todo, plan, flags, catalog, record)
        record.counts["already_done"] = sum(style.state == "done" for style in plan.styles)
        return record.exit_code


def _train(
    todo: list[StylePlan], plan: TrainPlan, flags: TrainStylesFlags, catalog: StyleCatalog, record: RunRecord
) -> None:
    settings = WorkerSettings(
        base_location=plan.base_location,
        storage=plan.storage,
        run_id=record.run_id,
        checkpoint_every_s=flags.checkpoint_seconds,
        threads=max(1, int(flags.cpus_per_worker)),
        wait=flags.if_busy == "wait",
        memory=flags.memory,
    )
    styles, measured = {style.style_id: style for style in todo}, Measured()
    with connect(shared=[plan.storage]) as cluster, record.timed("train"):
        wanted = flags.workers.within(len(todo))
        resources = room_for(flags.resources, cluster, flags.wait, wanted.of(len(todo)))
        flags.check_memory(resources.device)
        console.print(
            f"Ray at {cluster.address}: {len(todo)} to train by {outlook(resources, wanted, nodes())}.", markup=False
        )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        queue: Any = QueueActor.options(scheduling_strategy=here).remote(todo, flags.max_failures)
        fleet = Fleet(queue, settings, resources, flags.processes_per_style, flags.max_failures)
        iterations = {style.style_id: style.config.iterations for style in todo}
        with asking() as asked, TrainingProgress(console, iterations) as progress:
            elastic = None if cluster.started_here else Elastic(resources, flags, asked)
            unfinished = len(todo)
            while unfinished:
                if elastic:
                    elastic.look(unfinished)
                fleet.tend(wanted.of(unfinished))
                time.sleep(_TICK_S)
                report: Report = ray.get(queue.report.remote())
                unfinished = report.unfinished
                fleet.heard(report.ended_by, report.usages)
                progress.show(report.rows, report.training)
                for note in report.notes:
                    console.print(note, markup=False)
                for outcome in report.outcomes:
                    _end(styles[outcome.style_id], outcome.error, catalog, record)
                    if outcome.error is None:
                        measured.add(outcome.seconds, outcome.iterations)
        fleet.close()
        record.metrics |= measured.metrics(fleet.usage)


def _end(style: StylePlan, error: str | None, catalog: StyleCatalog, record: RunRecord) -> None:
    """What follows when a style is trained, or has failed."""
    if error is None:
        _register(catalog, style, record)
    else:
        record.counts["failed"] = record.counts.get("failed", 0) + 1
        console.print(f"[red]{style.style_id} failed:[/red] {escape(error)}", markup=True)


def _register(catalog: StyleCatalog, style: StylePlan, record: RunRecord) -> None:
    """The catalog's row, from the result that the training wrote last; its states are not needed any more."""
    row = catalog.register(style.folder.read_result())
    _forget(catalog.storage, style.run_name)
    record.counts["registered"] = record.counts.get("registered", 0) + 1
    console.print(f"[green]{row.style_id}@{row.version}[/green] registered, {row.train_seconds:.0f} s of training")


def _remove_leftovers(plan: TrainPlan) -> None:
    """Of styles that a job registered before it was killed."""
    done = {style.run_name for style in plan.styles if style.state == "done"}
    if done:
        places = (STATES, f"leases/{STATES}")
        kept = {name.partition("/")[0] for place in places for name in plan.storage.list_files(place)}
        for run_name in done & kept:
            _forget(plan.storage, run_name)


def _forget(storage: Storage, run_name: str) -> None:
    """A registered style needs neither its training's states nor the lease of a worker that was killed."""
    remove_states(states_of(storage, run_name))
    forget(storage, f"{STATES}/{run_name}")


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
    run_job(main, expected=(NoNodeLeft,))


if __name__ == "__main__":
    command()
