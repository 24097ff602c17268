"""Make a base bundle by pretraining: ``python jobs/train_base.py --images DIR --table labels.csv --out DIR``."""

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from rich.console import Console
from torch import Tensor

from cluster.commandline.cli import (
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
from cluster.runtime.resources import Resources
from cluster.runtime.run_record import RunRecord, run_record
from cluster.runtime.waiting import room_for
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
from osasis.errors import OsasisError
from osasis.pretrain.captions import own_words
from osasis.pretrain.recipe import PARTS, RECIPES, PartName, Recipe, current_part

console = Console(highlight=False, soft_wrap=True)
_WORK = ".work"
"""Below --out: what the job keeps to go on from."""


class DataFlags(JobFlags):
    """Which images it learns from, and their labels."""

    images: Uri = Field(description="Folder or prefix of images or of Parquet files, or one Parquet file.")
    table: Uri | None = Field(
        None,
        description="CSV with a column file (relative to --images) and labels for captions; the part clip needs it.",
    )
    split: str | None = Field(
        "train", description="Only rows of the table with this value in column split; an empty value takes all."
    )
    image_column: str = Field("image", description="Column of Parquet files with the images' bytes; others are labels.")
    bank_images: Uri | None = Field(
        None, description="Folder or prefix of photographs for the content bank; default: the first of --images."
    )


class BundleFlags(JobFlags):
    """The base bundle that is made."""

    out: OutputUri = Field(description="Where the bundle goes; working files are kept in its folder .work.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Name of the base: lowercase letters, digits and hyphens."
    )
    license: str = Field("", description="Terms under which the bundle may be used; written to base.json.")
    data: str = Field("", description="What it was trained on; written to base.json.")


class TrainingFlags(JobFlags):
    """Which networks are trained, and for how long."""

    recipe: Uri = Field(
        "mini64", description="Sizes of the networks and their training: mini64, ffhq256, or a YAML or JSON file."
    )
    parts: tuple[Annotated[PartName, BeforeValidator(current_part)], ...] = Field(
        PARTS, description="Which parts to train."
    )
    start_from: Uri | None = Field(
        None, description="A base of the same sizes whose weights the parts start from: bundled name or URI."
    )
    steps: dict[str, int] = Field({}, description="Optimizer steps of a part, over the recipe's: --steps diffae=100.")
    checkpoint_every: int = Field(200, gt=0, description="Steps between checkpoints to resume from.")
    sample_every: int = Field(1000, ge=0, description="Steps between samples of what was learned; 0: none.")
    gflops: float | None = Field(
        None, gt=0, description="Matrix rate of a worker for --dry-run, 10⁹ FLOP/s; default: measured on this machine."
    )


class TrainBaseFlags(DataFlags, BundleFlags, TrainingFlags, WorkersFlags):
    """Train the networks of a base and write the bundle: DiffAE, its latent prior, the photo prior, a CLIP.

    Each part is one Ray Train run over --workers data-parallel workers, and is resumed by giving the same command
    again. Images that cannot be used are listed and left out. Below <out>/.work: decoded images, checkpoints, finished
    parts, TensorBoard files (tensorboard/), samples (samples/) and run records. --dry-run prints memory and time.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--images faces --table labels.csv --name faces64 --out bases/faces64 --dry-run",
        "--images s3://bucket/faces --parts diffae,latent_prior --name faces64 --out s3://bucket/bases/faces64 "
        "--workers 8 --gpus-per-worker 1",
    )

    workers: int = Field(1, gt=0, description="Data-parallel workers.")


def main() -> int:
    flags = parse_flags(TrainBaseFlags, further=resolve)
    recipe, source, todo, bank = resolve(flags)
    out = Storage.open(flags.out)
    work = out.child(_WORK)
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
    config = flags.model_dump(mode="json")
    with run_record(work, job="train_base", config=config) as record, connect(shared=[work]) as cluster:
        resources = room_for(flags.resources, cluster, flags.wait, flags.workers)
        with record.timed("decode"):
            data = prepare(source, work, recipe.decode_size, recipe.image_size, console.print)
        recipe = recipe.with_words(own_words(read_rows(work, data)))
        usable = len(open_images(work, data))
        record.counts = {"images": usable, "left_out": source.count - usable}
        check_fit(recipe, todo, usable, flags.workers, work)
        _train(flags, resources, recipe, work, data, todo, record)
        photos = bank or bank_from_set(work, data, recipe)
        write_bundle(flags.name, recipe, out, work, photos, resources, data=flags.data, license=flags.license)
    console.print(f"[green]Base {flags.name} is in {out}[/green]")
    return ExitCode.DONE


def resolve(flags: TrainBaseFlags) -> tuple[Recipe, Source, list[PartName], list[Tensor] | None]:
    """(recipe, images, parts that are not finished, photographs of --bank-images); reads, and writes nothing.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(OsasisError)
    attempt = problems.attempt
    recipe = attempt("--recipe", lambda: read_recipe(flags.recipe, flags.steps))
    sized = recipe or RECIPES["mini64"]()  # of a wrong recipe, the images are looked at all the same
    work = Storage.open(flags.out).child(_WORK)
    todo = attempt("--out", lambda: still_to_train(flags.parts, work))
    given = (flags.images, flags.table, flags.split or None, flags.image_column)
    source = attempt("--images", lambda: open_source(*given, shard_images(sized.decode_size)))
    photos = flags.bank_images
    bank = attempt("--bank-images", lambda: bank_from_folder(Storage.open(photos), sized)) if photos else None
    if source and "clip" in (todo or ()) and not source.labelled:
        hint = "give --table, or leave it out by --parts"
        problems.append(Problem("--table", "the part clip needs labels for its captions", hint))
    base = flags.start_from
    start = attempt("--start-from", lambda: describe_base(base)[1]) if base is not None else None
    if recipe and start:
        process = recipe.unet.model_dump(include={"beta_end", "typical_noise"})
        if (start.unet.model_copy(update=process), start.encoder) != (recipe.unet, recipe.encoder):
            problems.append(Problem("--start-from", f"{start.name} has networks of other sizes than the recipe"))
    if problems or recipe is None or source is None or todo is None:
        raise ConfigError(problems)
    keep_plan(recipe, work, write=False)
    check_fit(recipe, todo, source.count, flags.workers, work)
    return recipe, source, todo, bank


def _train(
    flags: TrainBaseFlags,
    resources: Resources,
    recipe: Recipe,
    work: Storage,
    data: str,
    todo: list[PartName],
    record: RunRecord,
) -> None:
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


def command() -> None:
    """The job as a console script."""
    run_job(main)


if __name__ == "__main__":
    command()
