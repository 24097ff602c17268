"""Make a base bundle by pretraining: ``python jobs/train_base.py --images DIR --table labels.csv --out DIR``."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from rich.console import Console

from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, Problem, parse_flags, run_job
from cluster.runtime.connection import connect
from cluster.runtime.resources import Resources
from cluster.runtime.run_record import RunRecord, run_record
from cluster.storage import Storage
from jobs.pretraining.bundle import bank_from_folder, bank_from_set, write_bundle
from jobs.pretraining.dataset import open_images, prepare, read_rows, shard_images
from jobs.pretraining.estimate import cost_table
from jobs.pretraining.latents import encode_all
from jobs.pretraining.loop import Pretraining, fit_part
from jobs.pretraining.parts import part_file
from jobs.pretraining.recipes import check_fit, keep_plan, read_recipe, still_to_train
from jobs.pretraining.sources import Source, open_source
from jobs.shared.bases import describe_base
from osasis.errors import BaseError
from osasis.pretrain.captions import own_words
from osasis.pretrain.recipe import PARTS, PartName, Recipe, current_part

console = Console(highlight=False, soft_wrap=True)


class TrainBaseFlags(JobFlags):
    """Trains the networks of a base and writes the bundle: DiffAE, its latent prior, the photo prior, a CLIP.

    Each part is one Ray Train run over --workers workers, taken up again where it stopped when the same command is
    given. Images that cannot be used are listed and left out. Below <out>/.work: decoded images, checkpoints, finished
    parts, TensorBoard files (tensorboard/), pictures of what was learned so far (samples/) and run records.
    Exit codes: 0 done, 1 failed, 2 bad usage or configuration.
    """

    images: str
    """Folder or s3:// prefix of images or of Parquet files, or one Parquet file."""
    table: str | None = None
    """CSV with a column ``file`` (relative to --images) and labels for captions; needed for the part clip."""
    split: str | None = "train"
    """Rows of the table with this value in column ``split``; an empty value takes all."""
    image_column: str = "image"
    """Of Parquet files: the column with the images' bytes; the others are labels."""
    out: str
    """Where the bundle goes: path or s3:// URI. Working files are kept in its folder ``.work``."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Name of the base, as styles will know it."""
    recipe: str = "mini64"
    """Sizes of the networks and how they are trained: mini64, ffhq256, or a YAML or JSON file."""
    parts: tuple[Annotated[PartName, BeforeValidator(current_part)], ...] = PARTS
    """Which parts to train."""
    bank_images: str | None = None
    """Folder or prefix of photographs for the content bank; default: the first of --images."""
    start_from: str | None = None
    """A base of the same sizes whose weights the parts begin with, not random ones: bundled name, path or URI."""
    steps: dict[str, int] = Field({})
    """Optimizer steps of a part instead of the recipe's, such as --steps diffae=100."""
    workers: int = Field(1, gt=0)
    """Data-parallel workers."""
    cpus_per_worker: float = Field(1.0, gt=0)
    """CPUs of each worker."""
    gpus_per_worker: float = Field(0.0, ge=0)
    """GPUs of each worker."""
    checkpoint_every: int = Field(200, gt=0)
    """Steps between checkpoints to resume from."""
    sample_every: int = Field(1000, ge=0)
    """Steps between looks at what was learned; 0: none."""
    license: str = ""
    """Terms under which the bundle may be used; goes into base.json."""
    data: str = ""
    """What it was trained on; goes into base.json."""
    gflops: float | None = Field(None, gt=0)
    """Matrix rate of one worker for --dry-run, 10⁹ FLOPs per second; default: measured on this machine."""
    dry_run: bool = False
    """Print the resolved plan with its costs and touch nothing."""


def main() -> int:
    flags = parse_flags(TrainBaseFlags)
    recipe = read_recipe(flags.recipe, flags.steps)
    out = Storage.open(flags.out)
    work = out.child(".work")
    source = open_source(
        flags.images, flags.table, flags.split or None, flags.image_column, shard_images(recipe.decode_size)
    )
    todo = still_to_train(flags.parts, work)
    _check(flags, recipe, source, todo, work)
    bank = bank_from_folder(Storage.open(flags.bank_images), recipe) if flags.bank_images else None
    console.print(
        f"base {flags.name}: {source.count} images at {recipe.image_size} px, {flags.workers} workers → {out}"
    )
    for part in flags.parts:
        console.print(f"  {part}: {'to train' if part in todo else 'done'}")
    if flags.dry_run:
        console.print(cost_table(recipe, todo, flags.workers, flags.gflops))
        return ExitCode.DONE
    out.check_writable()
    keep_plan(recipe, work, write=True)
    with run_record(work, job="train_base", config=flags.model_dump(mode="json")) as record, connect():
        with record.timed("decode"):
            data = prepare(source, work, recipe.decode_size, recipe.image_size, console.print)
        recipe = recipe.with_words(own_words(read_rows(work, data)))
        usable = len(open_images(work, data))
        record.counts = {"images": usable, "left_out": source.count - usable}
        check_fit(recipe, todo, usable, flags.workers, work)
        _train(flags, recipe, work, data, todo, record)
        photos = bank or bank_from_set(work, data, recipe)
        resources = Resources(cpus=flags.cpus_per_worker, gpus=flags.gpus_per_worker)
        write_bundle(flags.name, recipe, out, work, photos, resources, data=flags.data, license=flags.license)
    console.print(f"[green]Base {flags.name} is in {out}[/green]")
    return ExitCode.DONE


def _check(flags: TrainBaseFlags, recipe: Recipe, source: Source, todo: list[PartName], work: Storage) -> None:
    """All that can be known before anything starts."""
    if "clip" in todo and not source.labelled:
        hint = "give --table, or leave it out by --parts"
        raise ConfigError(Problem("--table", "the part clip needs labels for its captions", hint))
    if flags.start_from is not None:
        try:
            spec = describe_base(flags.start_from)[1]
        except BaseError as error:
            raise ConfigError(Problem("--start-from", str(error))) from error
        process = recipe.unet.model_dump(include={"beta_end", "typical_noise"})
        if (spec.unet.model_copy(update=process), spec.encoder) != (recipe.unet, recipe.encoder):
            raise ConfigError(Problem("--start-from", f"{spec.name} has networks of other sizes than the recipe"))
    keep_plan(recipe, work, write=False)
    check_fit(recipe, todo, source.count, flags.workers, work)


def _train(
    flags: TrainBaseFlags, recipe: Recipe, work: Storage, data: str, todo: list[PartName], record: RunRecord
) -> None:
    resources = Resources(cpus=flags.cpus_per_worker, gpus=flags.gpus_per_worker)
    plan = Pretraining(
        recipe=recipe,
        work=work,
        data=data,
        workers=flags.workers,
        resources=resources,
        checkpoint_every=flags.checkpoint_every,
        sample_every=flags.sample_every,
        start_from=describe_base(flags.start_from)[0] if flags.start_from else None,
    )
    for part in todo:
        if part == "latent_prior":
            with record.timed("latents"):
                encode_all(recipe, work, data, part_file("diffae"), flags.workers, resources)
        with record.timed(part):
            metrics = fit_part(part, plan)
        record.metrics |= {f"{part}/{name}": value for name, value in metrics.items()}
        console.print(f"{part}: done, loss {metrics.get('loss', float('nan')):.4f}")


if __name__ == "__main__":
    run_job(main)
