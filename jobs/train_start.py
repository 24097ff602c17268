"""Learn from many references where styles of a base begin best: ``python jobs/train_start.py --references URI``."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import ray
import torch
from pydantic import Field
from rich.console import Console
from safetensors.torch import load, save

from cluster.commandline.cli import (
    ConcurrencyFlags,
    ConfigError,
    ExitCode,
    JobFlags,
    OutputUri,
    Problem,
    Uri,
    WorkersFlags,
    parse_flags,
    run_job,
)
from cluster.commandline.problems import Problems
from cluster.runtime.connection import connect
from cluster.runtime.lease import Lease, lease
from cluster.runtime.resources import Resources
from cluster.runtime.run_record import RunRecord, run_record
from cluster.runtime.waiting import room_for
from cluster.storage import Storage
from jobs.finetuning.contents import read_image
from jobs.finetuning.plan import read_photos
from jobs.shared.bases import describe_base, open_base
from osasis.base import Base, BaseSpec, fingerprint
from osasis.checkpoint import Style, load_style
from osasis.content import Content
from osasis.errors import OsasisError
from osasis.meta_start import dump_start, inner_config, moved, train_from
from osasis.seeding import generator
from osasis.settings import ContentConfig, Preset, TrainConfig, train_config
from osasis.style_training import missing_parts, training_content

console = Console(highlight=False, soft_wrap=True)


class MethodFlags(JobFlags):
    """How the start is learnt (Reptile)."""

    rounds: int = Field(24, gt=0, description="Rounds, after each of which the start moves.")
    styles_per_round: int = Field(4, gt=0, description="References trained at the same time in a round.")
    iterations: int = Field(8, gt=0, description="Iterations of each.")
    rate: float = Field(0.5, gt=0, le=1, description="How far the start moves at first; falls linearly to 0.")


class TrainStartFlags(MethodFlags, WorkersFlags, ConcurrencyFlags):
    """Learn weights from which styles of a base need fewer iterations, from a folder of references.

    The result is a file that trainings begin from: --train.start-from URI. Killed and run again, it goes on with the
    round that it was in.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--references paintings --output starts/paintings.safetensors --train.adapter-rank 4",
        "--references s3://bucket/paintings --output s3://bucket/starts/paintings.safetensors --gpus-per-worker 0.5",
    )

    references: Uri = Field(description="Folder of reference pictures.")
    output: OutputUri = Field(description="The file to write, *.safetensors.")
    base: Uri = Field("mini64", description="Base: bundled name or URI.")
    preset: Preset = Field("official", description="Of the trainings that will begin there.")
    train: TrainConfig = TrainConfig()


@dataclass(frozen=True)
class StartJob:
    """Everything resolved."""

    base_location: str
    base: BaseSpec
    config: TrainConfig
    preset: Preset
    references: dict[str, str]
    """URI → identity of the picture."""
    photos: tuple[str, ...]
    """To train on, where ``config`` names a folder of them."""
    output: Storage
    state: Storage
    """A folder beside the output, for these settings; empty at the end."""

    @property
    def place(self) -> Storage:
        """The folder that holds both, and the run's record."""
        return Storage.open(self.output.uri.rpartition("/")[0])

    @property
    def name(self) -> str:
        return self.output.uri.rpartition("/")[2]


def resolve(flags: TrainStartFlags) -> StartJob:
    """Raises ConfigError with every problem; writes nothing."""
    problems = Problems(OsasisError)
    attempt = problems.attempt
    content = ContentConfig(photos=flags.references, count=1_000_000)
    references = attempt("--references", lambda: read_photos(content))
    base = attempt("--base", lambda: describe_base(flags.base))
    output = attempt("--output", lambda: Storage.open(flags.output))
    if not flags.output.endswith(".safetensors"):
        problems.append(Problem("--output", f"{flags.output!r} does not end with .safetensors"))
    if flags.train.start_from != "none":
        problems.append(Problem("--train.start-from", "a start begins at the base", "leave it out"))
    config, photos = None, None
    if base:
        given = flags.train.model_dump(exclude_unset=True)
        config = attempt("--train", lambda: train_config(flags.preset, base[1].train_defaults, given))
    if base and config:
        config = inner_config(config, flags.iterations)
        problems += [Problem("--base", f"lacks {part}") for part in missing_parts(base[1], config)]
        folder = config.content
        photos = attempt("--train.content.photos", lambda: (*read_photos(folder),) if folder.photos else ())
    if problems or not (references and base and output and config) or photos is None:
        raise ConfigError(problems)
    identity: list[Any] = [fingerprint(base[1]), flags.preset, config.model_dump(mode="json"), [*references.values()]]
    identity += [flags.rounds, flags.styles_per_round, flags.rate, *photos]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    state = Storage.open(f"{output.uri}.{key}")
    return StartJob(*base, config, flags.preset, references, photos, output, state)


def references_of(round_: int, count: int, names: Sequence[str], seed: int) -> list[str]:
    """Of a round: the pictures shuffled again and again, cut into rounds."""
    first = round_ * count
    passes = range(first // len(names), (first + count - 1) // len(names) + 1)
    order = [names[i] for p in passes for i in torch.randperm(len(names), generator=generator(seed, "start", p))]
    return order[first - passes[0] * len(names) :][:count]


@ray.remote(max_retries=3)
def trained(job: StartJob, start: bytes | None, uri: str, threads: int, device: str) -> tuple[bytes, float] | str:
    """(the file of what a reference made of the start, its last loss); what is wrong with it, in words."""
    torch.set_num_threads(threads)
    base, content = _loaded(job.base_location, device, job.config.model_dump_json(), job.photos)
    known = job.state.child(f"photo-{job.references[uri]}.safetensors")
    try:
        image = read_image(uri, base.image_size, job.config.fit)
        photo = load(known.read_bytes())["photo"] if known.stat() else None
        began = _style(start, base)
        style, found, loss = train_from(base, began, image, job.config, job.preset, content, photo)
    except OsasisError as error:
        return str(error)
    if photo is None:
        known.write_bytes("", save({"photo": found.cpu().contiguous()}))
    return dump_start(style, torch.float32), loss


@lru_cache(maxsize=1)
def _loaded(location: str, device: str, settings: str, uris: tuple[str, ...]) -> tuple[Base, Content]:
    base, config = open_base(location, device), TrainConfig.model_validate_json(settings)
    photos = torch.cat([read_image(uri, base.image_size, config.fit) for uri in uris]) if uris else None
    return base, training_content(base, config, photos)


def _style(data: bytes | None, base: Base) -> Style | None:
    if data is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        return load_style(Path(file.name), base)


def main() -> int:
    flags = parse_flags(TrainStartFlags, further=resolve)
    job = resolve(flags)
    console.print(
        f"{len(job.references)} references on {job.base.name}: {flags.rounds} rounds of {flags.styles_per_round}"
        f" styles, {flags.iterations} iterations each → {job.output}",
        markup=False,
    )
    if flags.dry_run:
        return ExitCode.DONE
    if job.output.stat():
        console.print(f"{job.output} is there already; nothing to do.", markup=False)
        return ExitCode.DONE
    place = job.place
    place.check_writable()
    with (
        run_record(place, job="train_start", config=flags) as record,
        lease(place, job.name, run_id=record.run_id, job=record.job, wait=flags.if_busy == "wait") as held,
        connect(shared=[place]) as cluster,
        record.timed("train"),
    ):
        _learn(job, flags, room_for(flags.resources, cluster, flags.wait, flags.styles_per_round), held, record)
    console.print(f"[green]a start for styles of {job.base.name}[/green]: --train.start-from {job.output}")
    return ExitCode.DONE


def _learn(job: StartJob, flags: TrainStartFlags, resources: Resources, held: Lease, record: RunRecord) -> None:
    base = open_base(job.base_location, "cpu")
    data, first = _newest(job.state)
    start = _style(data, base)
    task = trained.options(**resources.ray_options())
    for round_ in range(first, flags.rounds):
        uris = references_of(round_, flags.styles_per_round, [*job.references], job.config.seed)
        given = ray.put(data)
        tasks = [task.remote(job, given, uri, flags.threads, resources.device) for uri in uris]
        results = [*zip(uris, ray.get(tasks), strict=True)]
        for uri, result in results:
            if isinstance(result, str):
                console.print(f"{uri}: {result}", style="yellow", markup=False)
        made = [result for _, result in results if not isinstance(result, str)]
        if not made:
            raise OsasisError(f"none of the references of round {round_ + 1} could be trained: {results[0][1]}")
        styles = [style for file, _ in made if (style := _style(file, base))]
        start = moved(base, start, styles, flags.rate * (1 - round_ / flags.rounds))
        data = dump_start(start, torch.float32)
        held.check()
        job.state.write_bytes(_round_file(round_ + 1), data)
        loss = sum(loss for _, loss in made) / len(made)
        record.metrics["loss"] = loss
        console.print(f"round {round_ + 1} of {flags.rounds}: loss {loss:.4g} after {flags.iterations} iterations")
    assert start is not None
    job.output.write_bytes("", dump_start(start))
    for name in job.state.list_files():
        job.state.delete(name)


def _round_file(done: int) -> str:
    return f"round-{done:06d}.safetensors"


def _newest(state: Storage) -> tuple[bytes | None, int]:
    """(the start after the last whole round, how many were done)."""
    files = sorted(name for name in state.list_files() if name.startswith("round-"))
    for name in files[:-1]:
        state.delete(name)
    return (state.read_bytes(files[-1]), int(files[-1][6:12])) if files else (None, 0)


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(OsasisError,))


if __name__ == "__main__":
    command()
