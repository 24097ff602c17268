"""Does text editing do what the text says? ``python -m benchmarks.text_editing --portraits DIR``.

Trains a small classifier of smiles, glasses and beards on the train split of DIR/labels.csv, changes dev portraits that
lack one of them by its prompt, and prints how often the classifier then sees it and how much of the structure stayed.
Nothing of the base or its CLIP enters the classifier.
"""

import csv
import time
from pathlib import Path

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.attributes import ATTRIBUTES, Attribute, Row, labels, train
from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, Problem, parse_flags, run_job
from jobs.shared.bases import open_base
from osasis.base import Base
from osasis.content import Content
from osasis.image import decode_image, encode_png, fit, to_image, to_tensor
from osasis.metrics import gradient_correlation, structural_similarity
from osasis.settings import StylizeConfig, TextConfig
from osasis.strength import no_style, without_style
from osasis.stylize import encode, encoding_for, stylize
from osasis.text_edit import edit

SIDE = 64
"""Side of the pictures that the classifier sees, pixels."""

console = Console(highlight=False, soft_wrap=True, width=120)


class Flags(JobFlags, TextConfig):  # type: ignore[misc]  # each has a model_config; the first counts
    """Prints a table: per prompt and strength, what the classifier sees before and after, and structure kept."""

    portraits: Path = Field(description="Folder with labels.csv and its images.")
    base: str = Field("mini64", description="Base: bundled name, path or s3:// URI.")
    count: int = Field(12, gt=0, description="Portraits per prompt.")
    strengths: list[float] = Field([1.0, 2.0, 4.0], description="Strengths, each tried with the same optimized move.")
    epochs: int = Field(40, gt=0, description="Passes of the classifier over the train split.")
    encode_steps: int = Field(50, gt=0, description="As in stylizing.")
    decode_steps: int = Field(25, gt=0, description="As in stylizing.")
    out: Path | None = Field(None, description="Folder for a grid of pictures per prompt: photo, unchanged, strengths.")
    device: str = Field("cpu", description="Where the networks run.")

    def text_config(self) -> TextConfig:
        """The method's part."""
        return TextConfig(**self.model_dump(include=set(TextConfig.model_fields)))


def main() -> int:
    flags = parse_flags(Flags)
    start = time.process_time()
    base = open_base(flags.base, flags.device)
    try:
        for attribute in ATTRIBUTES:
            flags.text_config().check_prompt(attribute.prompt, base.spec.clip)
    except ValueError as error:
        raise ConfigError(Problem("--base", str(error))) from None
    rows = {split: _read(flags.portraits, split) for split in ("train", "dev")}
    images = {split: torch.stack([_image(flags.portraits, row, SIDE) for row in rows[split]]) for split in rows}
    judge = train(images["train"], labels(rows["train"]), epochs=flags.epochs)
    console.print(_judge_table(judge, images["dev"], labels(rows["dev"])))
    table = Table("prompt", "strength", "portraits", "seen before", "seen after", "turned", "edges", "SSIM", "PSNR dB")
    for i, attribute in enumerate(ATTRIBUTES):
        lacking = _lacking(rows["dev"], attribute)[: flags.count]
        photos = torch.stack([_image(flags.portraits, row, base.image_size) for row in lacking])
        before, after = _edited(base, photos.to(flags.device), attribute, flags)
        for strength, pictures in after.items():
            table.add_row(attribute.prompt, f"{strength:g}", str(len(photos)), *_figures(judge, before, pictures, i))
        if flags.out:
            flags.out.mkdir(parents=True, exist_ok=True)
            grid = torch.cat([torch.cat([*row], 2) for row in (photos.cpu(), before, *after.values())], 1)
            (flags.out / f"{attribute.name}.png").write_bytes(encode_png(to_image(grid)))
    console.print(table)
    console.print(f"base {base.spec.name} ({base.fingerprint}), {time.process_time() - start:.0f} s of CPU")
    return ExitCode.DONE


@torch.no_grad()
def _edited(base: Base, photos: Tensor, attribute: Attribute, flags: Flags) -> tuple[Tensor, dict[float, Tensor]]:
    """The base's own reconstruction, and the changed pictures by strength: [N, 3, S, S] each."""
    text = flags.text_config()
    asked = StylizeConfig(encode_steps=flags.encode_steps, decode_steps=flags.decode_steps)
    config, style = without_style(text.deepened(asked)), no_style(base)
    encoding = encoding_for(style, config)
    content = encode(base, photos, encoding)
    (moved,) = edit(base, content, [attribute.prompt], text.model_copy(update={"text_strength": 1.0}), encoding)

    def decode(strength: float) -> Tensor:
        z = torch.lerp(content.z_in, moved.z_in, strength)
        return stylize(style, Content(content.photos, z, content.x_t0), config).cpu()

    return decode(0.0), {strength: decode(strength) for strength in flags.strengths}


def _figures(judge: nn.Module, before: Tensor, after: Tensor, i: int) -> list[str]:
    seen, now = (_logits(judge, pictures)[:, i] > 0 for pictures in (before, after))
    error = (after - before).square().mean((1, 2, 3)) / 4  # of values in [0, 1]
    return [
        f"{seen.float().mean():.0%}",
        f"{now.float().mean():.0%}",
        f"{(now & ~seen).sum()} of {(~seen).sum()}",
        f"{gradient_correlation(after, before).mean():.2f}",
        f"{structural_similarity(after, before).mean():.2f}",
        f"{-10 * error.clamp_min(1e-10).log10().mean():.1f}",
    ]


def _judge_table(judge: nn.Module, images: Tensor, wanted: Tensor) -> Table:
    """The classifier's own figures on the dev split."""
    table = Table("attribute", "dev portraits", "accuracy", "majority", "yes found", "no found", title="The classifier")
    answers = _logits(judge, images) > 0
    for i, attribute in enumerate(ATTRIBUTES):
        known = wanted[:, i] >= 0
        said, truth = answers[known, i], wanted[known, i] == 1
        share = truth.float().mean().item()
        right = (said == truth).float()
        figures = right.mean(), max(share, 1 - share), right[truth].mean(), right[~truth].mean()
        table.add_row(attribute.name, str(int(known.sum())), *(f"{figure:.2f}" for figure in figures))
    return table


@torch.no_grad()
def _logits(judge: nn.Module, images: Tensor) -> Tensor:
    return judge(nn.functional.interpolate(images.cpu(), (SIDE, SIDE), mode="bilinear", antialias=True))


def _read(folder: Path, split: str) -> list[Row]:
    with (folder / "labels.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def _lacking(rows: list[Row], attribute: Attribute) -> list[Row]:
    """Portraits without the attribute, in the table's order; beards are asked of men."""
    return [row for row in rows if attribute.label(row) == 0 and (attribute.name != "beard" or row["person"] == "man")]


def _image(folder: Path, row: Row, size: int) -> Tensor:
    """[3, size, size] in [-1, 1]."""
    return to_tensor(fit(decode_image((folder / row["file"]).read_bytes()), size)[0])


if __name__ == "__main__":
    run_job(main)
