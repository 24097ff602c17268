"""What settings of finetuning do to pictures: ``python benchmarks/sweep_styles.py --sweep FILE``.

Trains every reference under every setting for real, stylizes the same photographs with each, and writes a table and a
picture per reference and setting. A row that is in the results file is not made again.
"""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, Problem, load_yaml, parse_flags, run_job
from jobs.shared.bases import open_base
from osasis.base import Base
from osasis.image import decode_image, encode_png, fit, to_image, to_tensor
from osasis.metrics import Judge, color_transfer, gradient_correlation, load_judge, structural_similarity
from osasis.settings import Preset, StylizeConfig, TrainConfig, train_config
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize

console = Console(highlight=False, soft_wrap=True)
FIGURES = ("style", "transfer", "structure", "edges", "least_edges", "ssim", "change", "train_seconds")


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]


class Reference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="The reference picture, a local file.")
    train: dict[str, Any] = Field({}, description="TrainConfig fields for this reference under every setting.")


class Setting(BaseModel):
    model_config = ConfigDict(extra="forbid")

    train: dict[str, Any] = Field({}, description="TrainConfig fields over the base's defaults.")
    stylize: dict[str, Any] = Field({}, description="StylizeConfig fields.")


class Sweep(BaseModel):
    """The sweep file."""

    model_config = ConfigDict(extra="forbid")

    preset: Preset = "official"
    references: dict[Name, Reference] = Field(min_length=1)
    settings: dict[Name, Setting] = Field(min_length=1)


class SweepFlags(JobFlags):
    """Trains references under settings, and measures the pictures.

    style, structure, edges: as osasis/metrics/judge.py says; transfer: the style distance of colour transfer;
    least_edges: of the one picture that kept least; ssim: of luminance; change: mean absolute difference from the
    photograph in [-1, 1].
    """

    sweep: str = Field(description="YAML file of references and settings; see benchmarks/sweep_mini64.yaml.")
    base: str = Field("mini64", description="Base: bundled name, path or s3:// URI.")
    photos: str = Field("samples/portraits", description="Folder of photographs to stylize.")
    count: int = Field(8, gt=0, description="Photographs taken, the first by name.")
    only: tuple[str, ...] = Field((), description="Settings to run; default: all of the file.")
    out: Path = Field(Path("runs/sweep"), description="Folder of results.jsonl, table.md, trained styles and pictures.")
    device: str = Field("cuda" if torch.cuda.is_available() else "cpu", description="Where the networks run.")


def main() -> int:
    flags = parse_flags(SweepFlags)
    sweep = load_yaml(flags.sweep, Sweep)
    if unknown := set(flags.only) - sweep.settings.keys():
        raise ConfigError(Problem("--only", f"no setting {min(unknown)!r}", f"there are: {', '.join(sweep.settings)}"))
    base = open_base(flags.base, flags.device)
    plan = _plan(sweep, base, flags)
    names = sorted(path for path in Path(flags.photos).iterdir() if path.suffix in (".jpg", ".png", ".webp"))
    if not names:
        raise ConfigError(Problem("--photos", f"{flags.photos} holds no .jpg, .png or .webp"))
    photos = torch.cat([_picture(path, base) for path in names[: flags.count]])
    flags.out.mkdir(parents=True, exist_ok=True)
    done, rows, judge = _done(flags.out), [], load_judge(flags.device)
    for key, reference, setting, image, train, stylizing in plan:
        if key not in done:
            row: dict[str, Any] = {"key": key, "base": base.fingerprint}
            row |= {"setting": setting, "reference": reference}
            picture = flags.out / f"{setting}-{reference}.png"
            row |= _measure(base, judge, image, train, stylizing, photos, picture)
            row |= {"train": train.model_dump(mode="json"), "stylize": stylizing.model_dump(mode="json")}
            with (flags.out / "results.jsonl").open("a") as file:
                file.write("\n" * _cut_short(file.name) + json.dumps(row) + "\n")
            done[key] = row
        row = done[key] | {"setting": setting, "reference": reference}  # two names may mean the same
        rows.append(row)
        console.print(f"{setting} {reference}: " + " ".join(f"{name} {row[name]:.3f}" for name in FIGURES))
    (flags.out / "table.md").write_text(_markdown(rows))
    console.print(_table(rows))
    return ExitCode.DONE


def _plan(sweep: Sweep, base: Base, flags: SweepFlags) -> list[tuple[str, str, str, Path, TrainConfig, StylizeConfig]]:
    """(key, reference, setting, image, training, stylization) of every row, all checked."""
    plan, problems = [], []
    for setting, s in sweep.settings.items():
        if flags.only and setting not in flags.only:
            continue
        for reference, r in sweep.references.items():
            image = Path(r.image)
            try:
                train = train_config(sweep.preset, base.spec.train_defaults, r.train, s.train)
                stylizing = StylizeConfig.model_validate(s.stylize)
                identity = [hashlib.sha256(image.read_bytes()).hexdigest(), base.fingerprint, sweep.preset]
            except (ValidationError, OSError) as error:
                problems.append(Problem(f"{flags.sweep} {setting}, {reference}", str(error)))
                continue
            identity += [train.model_dump_json(), stylizing.model_dump_json(), flags.photos, str(flags.count)]
            key = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
            plan.append((key, reference, setting, image, train, stylizing))
    if problems:
        raise ConfigError(problems)
    return plan


def _measure(
    base: Base, judge: Judge, image: Path, train: TrainConfig, stylizing: StylizeConfig, photos: Tensor, picture: Path
) -> dict[str, float]:
    """Train one reference under one setting, write its picture, and measure it."""
    started = time.monotonic()
    training = StyleTraining(base, _picture(image, base), train)
    for losses in training.run():
        total = losses["total"]
    seconds = time.monotonic() - started
    style, reference = training.style("sweep", "official"), training.reference
    with torch.no_grad():
        results = torch.cat(
            [
                stylize(style, encode(base, part, encoding_for(style, stylizing)), stylizing)
                for part in photos.split(train.batch_size)
            ]
        )
        measured = judge.measure(photos, results, reference.style)
        transfer = judge.measure(photos, color_transfer(photos, reference.style), reference.style)
        figures = asdict(measured) | {
            "transfer": transfer.style,
            "least_edges": gradient_correlation(photos, results).min().item(),
            "ssim": structural_similarity(photos, results).mean().item(),
            "change": (photos - results).abs().mean().item(),
        }
    # First column: the reference over its photograph; then the photographs over their results.
    columns = [torch.cat([reference.style[0], reference.photo[0]], 1)]
    columns += [torch.cat(pair, 1) for pair in zip(photos, results, strict=True)]
    picture.write_bytes(encode_png(to_image(torch.cat(columns, 2).cpu())))
    return figures | {"train_seconds": round(seconds, 1), "loss": total}


def _picture(path: Path, base: Base) -> Tensor:
    """[1, 3, S, S] in [-1, 1], by a centre crop."""
    return to_tensor(fit(decode_image(path.read_bytes()), base.image_size)[0])[None].to(base.device)


def _cut_short(path: str) -> bool:
    """Whether a kill left the file's last line without its end."""
    data = Path(path).read_bytes()
    return bool(data) and not data.endswith(b"\n")


def _done(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of the results file by key; a line that was cut short by a kill is no row."""
    path, rows = out / "results.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["key"]] = row
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("setting", "reference", *FIGURES)
    for row in rows:
        table.add_row(row["setting"], row["reference"], *(f"{row[name]:.3f}" for name in FIGURES))
    return table


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [f"| setting | reference | {' | '.join(FIGURES)} |", "|---" * (2 + len(FIGURES)) + "|"]
    lines += [
        f"| {row['setting']} | {row['reference']} | {' | '.join(f'{row[name]:.3f}' for name in FIGURES)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_job(main)
