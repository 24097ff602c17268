"""Previews for styles that lack them, such as imported ones: ``python jobs/make_previews.py --storage URI``."""

from collections.abc import Sequence
from typing import Any, ClassVar

import ray
import torch
from pydantic import Field
from ray.util import ActorPool
from rich.console import Console

from catalog.probes import PROBE_SET
from catalog.schema import StyleVersion
from catalog.store import StyleCatalog, UnknownStyle
from catalog.style_folder import FOLDER, folder_of
from cluster.commandline.cli import (
    ConfigError,
    ElasticFlags,
    ExitCode,
    JobFlags,
    OutputUri,
    Uri,
    parse_flags,
    run_job,
)
from cluster.commandline.problems import Problems
from cluster.runtime.connection import connect
from cluster.runtime.resources import capacity, nodes
from cluster.runtime.run_record import RunRecord, run_record
from cluster.runtime.waiting import room_for
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.shared.bases import describe_base, open_base
from jobs.shared.previews import make_preview
from osasis.base import BaseSpec, bundled_bases, fingerprint
from osasis.checkpoint import load_style
from osasis.errors import OsasisError
from osasis.full_size import Size

console = Console(highlight=False, soft_wrap=True)


class SelectionFlags(JobFlags):
    """Which styles of the catalog."""

    storage: OutputUri = Field(description="Where the catalog is.")
    styles: str | None = Field(
        None,
        description="Styles by id, id@version, id@alias or tag:TAG, or all; default: every version without a preview.",
        json_schema_extra={"metavar": "LIST"},
    )
    base: Uri | None = Field(
        None, description="Base: bundled name or URI; default: the styles' own. Styles of other bases are skipped."
    )


class MakePreviewsFlags(SelectionFlags, ElasticFlags):
    """Stylize the catalog's probe pictures with each style and record the previews, which the gallery compares."""

    examples: ClassVar[tuple[str, ...]] = (
        "--storage runs/mine",
        "--storage s3://bucket/styles --styles tag:print --base s3://bucket/bases/faces64 --gpus-per-worker 0.5",
    )

    size: Size = Field(
        "original",
        description="Size of each picture: original, the portraits' 256 pixels; base, the base's; or that many pixels.",
    )


@ray.remote(max_restarts=2, max_task_retries=2)
class PreviewMaker:
    """Holds one base."""

    def __init__(self, base_location: str, device: str, threads: int, size: Size) -> None:
        torch.set_num_threads(threads)
        self._size = size
        self._base = open_base(base_location, device)

    def make(self, style: StyleVersion, target: Storage) -> str | None:
        """Writes the preview to ``target``; the error's text where that fails."""
        try:
            loaded = load_style(fetch(style.checkpoint_uri, sha256=style.checkpoint_sha256), self._base)
            target.write_bytes("", make_preview(loaded, self._base).png(self._size))
        except Exception as error:  # one style's failure is a line of the result, not the end of the others
            return f"{type(error).__name__}: {error}"
        return None


def main() -> int:
    flags = parse_flags(MakePreviewsFlags, further=resolve)
    catalog, versions, location, todo = resolve(flags)
    console.print(f"{len(todo)} of {len(versions)} styles need previews on {PROBE_SET}: {', '.join(map(str, todo))}")
    if flags.dry_run or not todo:
        return ExitCode.DONE
    with run_record(catalog.storage, job="make_previews", config=flags) as record:
        _make(location, todo, flags, catalog, record)
        return record.exit_code


def resolve(flags: MakePreviewsFlags) -> tuple[StyleCatalog, list[StyleVersion], str, list[StyleVersion]]:
    """(catalog, versions chosen, the base's location, versions trained on it that lack the preview).

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(OsasisError, UnknownStyle)
    catalog = StyleCatalog.open(Storage.open(flags.storage))
    chosen = flags.styles
    versions = problems.attempt("--styles", lambda: catalog.resolve(chosen) if chosen else catalog.list()) or []
    missing = [version for version in versions if version.probe_set != PROBE_SET]
    base = problems.attempt("--base", lambda: _base(flags.base, missing))
    if problems:
        raise ConfigError(problems)
    location, spec = base or ("", None)
    mine = spec and fingerprint(spec)
    return catalog, versions, location, [version for version in missing if version.base_fingerprint == mine]


def _base(asked: str | None, missing: Sequence[StyleVersion]) -> tuple[str, BaseSpec] | None:
    """The base asked for, else the only one that the styles name."""
    names = sorted({version.base_name for version in missing})
    if asked is None and names and (len(names) > 1 or names[0] not in bundled_bases()):
        raise ValueError(f"styles were trained on {', '.join(names)}: give the location of one")
    return describe_base(asked or names[0]) if asked or names else None


def _make(
    location: str, todo: Sequence[StyleVersion], flags: MakePreviewsFlags, catalog: StyleCatalog, record: RunRecord
) -> None:
    with connect(shared=[catalog.storage]) as cluster, record.timed("previews"):
        resources = room_for(flags.resources, cluster, flags.wait)
        count = flags.workers.within(len(todo)).of(capacity(resources, nodes()))
        maker = PreviewMaker.options(**resources.ray_options())  # type: ignore[attr-defined]
        makers = [maker.remote(location, resources.device, flags.threads, flags.size) for _ in range(count)]

        def target(style: StyleVersion) -> Storage:
            # Where gc finds it: with the checkpoint, or in a folder of its own if that is elsewhere.
            folder = folder_of(catalog.storage, style.checkpoint_uri)
            return catalog.storage.child(
                folder or f"{FOLDER}/{style.style_id}/previews-{style.version}", f"preview-{PROBE_SET}.png"
            )

        pool: Any = ActorPool(makers)
        made = pool.map(lambda maker, style: maker.make.remote(style, target(style)), todo)
        for style, error in zip(todo, made, strict=True):
            if error is None:
                catalog.set_preview(str(style), target(style).uri, PROBE_SET)
            else:
                console.print(f"{style} failed: {error}", style="red", markup=False)
            outcome = "failed" if error else "made"
            record.counts[outcome] = record.counts.get(outcome, 0) + 1
    console.print(f"{record.counts.get('made', 0)} previews made, {record.counts.get('failed', 0)} failed")


def command() -> None:
    """The job as a console script."""
    run_job(main)


if __name__ == "__main__":
    command()
