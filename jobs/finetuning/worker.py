"""What runs inside a Ray Train worker: one style, from its picture to its files in storage."""

import hashlib
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from PIL import Image

from catalog.probes import PROBE_SET
from catalog.schema import NewStyle
from catalog.style_folder import CHECKPOINT, PHOTO, PREVIEW, REFERENCE
from cluster.storage import Storage
from jobs.finetuning.plan import StylePlan
from jobs.finetuning.saved_state import STATE, newest_state
from jobs.finetuning.warm_start import warm_start
from jobs.shared.bases import open_base
from jobs.shared.previews import make_preview
from osasis.base import clip_fingerprint
from osasis.full_size import texture_of, whole_reference
from osasis.image import FitMode, decode_image, encode_png, fit, to_image, to_tensor
from osasis.style_training import StyleTraining


def train_style(config: dict[str, Any]) -> None:
    """Ray Train's loop for one style. ``config``: plan, run, storage, base_location, run_id, checkpoint_every, threads,
    board.
    """
    plan: StylePlan = config["plan"]
    board: Any = config["board"]
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(config["threads"])
    base = open_base(config["base_location"], str(device))
    state = newest_state(config["run"], lambda text: board.note.remote(f"{plan.style_id}: {text}"))
    read = partial(_image, size=base.image_size, mode=plan.config.fit)
    picture = decode_image(Storage.open(plan.image_uri).read_bytes())
    reference = read(plan.image_uri)
    training = StyleTraining(
        base,
        reference,
        plan.config,
        photo=read(plan.photo_uri) if plan.photo_uri and state is None else None,
        photos=torch.cat([read(uri) for uri in plan.content]) if plan.content else None,
        state=state and state["training"],
        start=warm_start(config["storage"], base, plan.config, reference) if state is None else None,
        texture=texture_of(picture, base.image_size, plan.config.fit),
    )
    seconds = state["seconds"] if state else 0.0
    last = time.monotonic()
    losses: dict[str, float] = {}
    for losses in training.run():
        done = training.iterations_done
        seconds, last = seconds + time.monotonic() - last, time.monotonic()
        board.progress.remote(plan.style_id, done, plan.config.iterations, losses["total"])
        if done % config["checkpoint_every"] == 0 and not training.done:
            _report({"iteration": done, **losses}, {"training": training.state_dict(), "seconds": seconds})
    if training.stopping:
        board.note.remote(f"{plan.style_id}: {training.stopping.reason(training.iterations_done)}")
    whole = whole_reference(picture, base.image_size, plan.config.fit)
    _finish(training, plan, config["run_id"], losses, seconds, whole)
    ray.train.report({"iteration": training.iterations_done, **losses})


def _report(metrics: dict[str, float], state: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _image(uri: str, size: int, mode: FitMode) -> torch.Tensor:
    """[1, 3, S, S] in [-1, 1]."""
    square, _ = fit(decode_image(Storage.open(uri).read_bytes()), size, mode)
    return to_tensor(square)[None]


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
