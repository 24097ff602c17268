"""What runs inside a Ray Train worker: style after style, on a base that is loaded once."""

import gc
import hashlib
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import ray
import ray.train
import ray.train.torch
import torch
from PIL import Image
from ray.train.collective import broadcast_from_rank_zero

from catalog.probes import PROBE_SET
from catalog.schema import NewStyle
from catalog.style_folder import CHECKPOINT, PHOTO, PREVIEW, REFERENCE, STATES
from cluster.runtime.lease import LeaseLost, lease
from cluster.storage import Storage, StorageError
from jobs.finetuning.admission import Usage
from jobs.finetuning.contents import Contents
from jobs.finetuning.following import FINAL, begin, call, follow, node_leaves
from jobs.finetuning.plan import StylePlan
from jobs.finetuning.saved_state import StateSaver, newest_state, states_of
from jobs.finetuning.style_queue import Task
from jobs.shared.bases import open_base
from jobs.shared.previews import make_preview
from osasis.base import clip_fingerprint
from osasis.errors import OsasisError
from osasis.full_size import texture_of, whole_reference
from osasis.image import decode_image, encode_png, to_image
from osasis.memory import limit_gpu_memory
from osasis.ranks import ALONE, PeerFailed, Ranks, joined
from osasis.style_training import StyleTraining

_SHOW_EVERY_S = 1.0
_NOTICE_EVERY_S = 2.0


@dataclass(frozen=True)
class WorkerSettings:
    """What all workers of a run share."""

    base_location: str
    storage: Storage
    run_id: str
    checkpoint_every_s: float
    threads: int
    wait: bool
    """Wait for another job that trains the same style."""
    memory: int | None = None
    """Bytes of its GPU that it may take; None: all."""


class Leaving(Exception):
    """The node is about to go; the training's state is stored."""


def train_styles(config: dict[str, Any]) -> None:
    """Ray Train's loop: takes styles from the queue until there are none. ``config``: queue, settings, name, folder.

    Where several processes train a style together, the first does so, and the others follow it
    (:mod:`jobs.finetuning.following`).

    An error of the method or of settings fails its style. One of storage costs the style a try. After any other, such
    as one of CUDA, the process is not trusted any more: Ray Train starts another.
    """
    queue, name = config["queue"], config["name"]
    settings: WorkerSettings = ray.get(config["settings"])
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(settings.threads)
    elif settings.memory:
        limit_gpu_memory(settings.memory, device)
    try:
        base = open_base(settings.base_location, str(device))
    except OsasisError as error:
        ray.get(queue.abandon.remote(_text(error)))
        return
    context = ray.train.get_context()
    count = context.get_world_size()
    place = broadcast_from_rank_zero(f"{config['folder']}/{uuid4().hex}") if count > 1 else ""  # anew after a death
    with joined(context.get_world_rank(), count, place) as ranks:
        if ranks.is_first:
            _lead(queue, name, Contents(base), settings, device, ranks)
        else:
            follow(Contents(base), settings.storage, ranks)


def _lead(
    queue: Any, name: str, contents: Contents, settings: WorkerSettings, device: torch.device, ranks: Ranks
) -> None:
    """Style after style, and the others told when there is none."""
    watch = NodeWatch(ranks)
    while not watch.told and (task := ray.get(queue.take.remote(name))):
        started = time.monotonic()
        try:
            done = train_style(task, contents, settings, Reports(queue, name, str(device), watch, ranks.count), ranks)
        except Leaving:
            ray.get(queue.give_back.remote(name))
            break
        except FINAL as error:
            ray.get(queue.ended.remote(name, _text(error)))
        except (StorageError, LeaseLost, PeerFailed) as error:
            ray.get(queue.failed.remote(name, _text(error)))
        except Exception as error:
            ray.get(queue.failed.remote(name, _text(error)))
            raise
        else:
            ray.get(queue.used.remote(name, _usage(device, ranks.count)))
            ray.get(queue.ended.remote(name, None, time.monotonic() - started, done))
        gc.collect()  # a training's graph holds cycles
    ranks.said(None)


@dataclass
class Reports:
    """What a training tells the queue, and whether its node is about to go."""

    queue: Any
    worker: str
    device: str = "cpu"
    node_leaves: Callable[[], bool] = lambda: False
    processes: int = 1
    _shown: float = 0.0

    def note(self, text: str) -> None:
        self.queue.note.remote(text)

    def progress(self, done: int, total: int, loss: float) -> None:
        """Not more often than a person looks; with the first, the memory taken, which does not grow much after."""
        if not self._shown:
            self.queue.used.remote(self.worker, _usage(torch.device(self.device), self.processes))
        if done == total or time.monotonic() - self._shown > _SHOW_EVERY_S:
            self._shown = time.monotonic()
            self.queue.progress.remote(self.worker, done, total, loss)


def train_style(
    task: Task, contents: Contents, settings: WorkerSettings, reports: Reports, ranks: Ranks = ALONE
) -> int:
    """Train a style to its files in storage, unless another job does or did; iterations that it took here.

    Raises:
        PeerFailed: another process of it failed.
        LeaseHeld: another job trains it.
        LeaseLost: another job may train it now.
        Leaving: the node is about to go.
        OsasisError: it cannot be trained.
        StorageError: storage failed.
    """
    plan = task.plan
    with lease(
        settings.storage, f"{STATES}/{plan.run_name}", run_id=settings.run_id, job="train_styles",
        wait=settings.wait or task.again, on_wait=lambda holder: reports.note(f"{plan.style_id} waits for {holder}"),
    ) as held:  # fmt: skip
        if plan.folder.finished()[0]:  # by the job that was waited for
            return 0
        run = states_of(settings.storage, plan.run_name)

        def say(text: str) -> None:
            reports.note(f"{plan.style_id}: {text}")

        saver = StateSaver(run, settings.checkpoint_every_s, say)
        try:
            done = _train(plan, contents, settings, reports, saver, newest_state(run, say), held.check, ranks)
        finally:
            saver.close()
        held.check()
        return done


def _train(
    plan: StylePlan,
    contents: Contents,
    settings: WorkerSettings,
    reports: Reports,
    saver: StateSaver,
    state: dict[str, Any] | None,
    check_lease: Callable[[], None],
    ranks: Ranks,
) -> int:
    """Iterations that it took."""
    picture = decode_image(Storage.open(plan.image_uri).read_bytes())
    texture = texture_of(picture, contents.base.image_size, plan.config.fit)
    call(plan, state, ranks)
    training = begin(plan, contents, settings.storage, lambda: state, ranks, texture)
    seconds = state["seconds"] if state else 0.0
    begun_at, last, use = training.iterations_done, time.monotonic(), training.finetuner.memory_use
    losses: dict[str, float] = {}
    for losses in training.run():
        leaves = reports.node_leaves()
        with ranks.all_well():
            done = training.iterations_done
            seconds, last = seconds + time.monotonic() - last, time.monotonic()
            reports.progress(done, plan.config.iterations, losses["total"])
            if training.finetuner.memory_use != use:
                use = training.finetuner.memory_use
                reports.note(f"{plan.style_id}: memory ran out, and from now on less is kept: {use}")
            if not training.done and (leaves or saver.due):
                check_lease()
                saver.save(done, {"training": training.state_dict(), "seconds": seconds})
        if ranks.said(leaves and not training.done):
            raise Leaving
    if training.stopping:
        reports.note(f"{plan.style_id}: {training.stopping.reason(training.iterations_done)}")
    whole = whole_reference(picture, contents.base.image_size, plan.config.fit)
    _finish(training, plan, settings.run_id, losses, seconds, whole)
    return training.iterations_done - begun_at


class NodeWatch:
    """Asks every few seconds whether this worker's node is about to go. ``told``: it is."""

    def __init__(self, ranks: Ranks) -> None:
        self.told = False
        self._ranks, self._asked = ranks, time.monotonic()

    def __call__(self) -> bool:
        """To be called between iterations, in all processes."""
        due = not self.told and time.monotonic() - self._asked > _NOTICE_EVERY_S
        if due:
            self._asked = time.monotonic()
        self.told = node_leaves(self._ranks, asked=due) or self.told
        return self.told


def _usage(device: torch.device, processes: int) -> Usage:
    """The most that this process and its likes have taken so far; of GPUs, each has its own."""
    memory = processes * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if device.type != "cuda":
        return Usage(memory)
    return Usage(memory, torch.cuda.max_memory_reserved(device), torch.cuda.mem_get_info(device)[1])


def _text(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


@torch.no_grad()
def _finish(
    training: StyleTraining,
    plan: StylePlan,
    run_id: str,
    losses: dict[str, float],
    seconds: float,
    whole: Image.Image,
) -> None:
    """Write the style's files, the result last. ``whole``: the reference at its largest."""
    base, reference = training.base, training.reference
    style = training.style(plan.style_id, plan.preset)
    data = training.checkpoint(plan.style_id, plan.preset)
    preview = make_preview(style, base)
    folder = plan.folder
    uris = {
        "reference_uri": folder.write(REFERENCE, encode_png(whole)),
        "photo_uri": folder.write(PHOTO, encode_png(to_image(reference.photo[0].cpu()))),
        "preview_uri": folder.write(PREVIEW, preview.png()),
        "checkpoint_uri": folder.write(CHECKPOINT, data),
    }
    metrics = {f"loss_{name}": value for name, value in losses.items()} | training.metrics()
    metrics |= preview.metrics(reference.style, base)
    result = NewStyle(
        **uris,
        style_id=plan.style_id,
        base_name=base.spec.name,
        base_fingerprint=base.fingerprint,
        checkpoint_sha256=hashlib.sha256(data).hexdigest(),
        checkpoint_bytes=len(data),
        checkpoint_format=training.header(plan.style_id, plan.preset).format,
        preset=plan.preset,
        train_config=plan.config.model_dump(mode="json"),
        reference_sha256=plan.image_sha256,
        probe_set=PROBE_SET,
        metrics=metrics,
        clip_embedding=base.clip.encode_image(reference.style)[0].tolist(),
        clip_encoder=clip_fingerprint(base.spec),
        tags=list(plan.tags),
        notes=plan.notes,
        license=plan.license,
        started_from=[*training.started_from],
        run_id=run_id,
        train_seconds=round(seconds, 1),
        device=torch.cuda.get_device_name() if base.device.type == "cuda" else "cpu",
        software={name: version(name) for name in ("torch", "ray", "open_clip_torch")},
    )
    folder.write_result(result)
