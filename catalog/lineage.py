"""Where a picture or a style comes from, and how to make it again: from manifest row and run record to the command."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.manifest import Manifest
from catalog.output_names import RUN_FLAGS, output_of
from catalog.schema import StyleVersion
from catalog.store import StyleCatalog
from cluster.storage import NotFound, Storage

_RUN_SHOWN = ("run_id", "job", "started_at", "outcome", "host", "git_commit", "versions")

Lineage = dict[str, Any]


def picture_lineage(catalog: StyleCatalog, uri: str, output: str) -> Lineage:
    """Of a stylized picture, by its ``output_uri`` in a manifest.

    ``picture`` and ``photograph`` (what was made of what), ``style`` (see :func:`style_lineage`; None for the base
    alone, or if the catalog no longer has it), ``settings``, ``run``, and ``command``: a shell line that makes the
    picture again below ``output``. ``same_bytes``: whether it makes the very same bytes, as far as processor and
    software are the same too; pictures that were made several at once come out as near as rounding lets them.
    Settings, run and what follows from them are None where the run's record is neither below the catalog's storage nor
    with the output.

    Raises:
        CatalogUsageError: no manifest knows of it.
        StorageError: storage does not answer.
    """
    picture = Storage.open(uri)
    found = output_of(picture.uri)
    made_in = Storage.open(found) if found else None
    row = made_in and Manifest(made_in).picture(picture.uri)
    if not made_in or not row:
        raise CatalogUsageError(f"{uri}: no manifest holds this picture; give the output_uri of a row that is done")
    # Version 0 is the base alone, which is asked for without a version.
    name = f"{row['style_id']}@{row['version']}" if row["version"] else row["style_id"]
    try:
        style = style_lineage(catalog, catalog.show(name)) if row["version"] else None
    except UnknownStyle:
        style = None
    # A run that could only read the catalog is recorded with its output.
    run = _run(catalog.storage, row["run_id"]) or _run(made_in, row["run_id"])
    settings = run and {key: value for key, value in run["config"].items() if key not in RUN_FLAGS}
    prompts = [row["text"]] if row.get("text") else []
    given = {"input": row["input_uri"], "styles": name, "text": prompts, "output": output}
    return {
        "picture": {key: row.get(key) for key in ("output_uri", "output_sha256", "params_hash", "text", "seed")},
        "photograph": {key: row[key] for key in ("input_uri", "input_sha256", "width", "height")},
        "style": style,
        "settings": settings,
        "run": run and _shown(run),
        "command": settings and _command("jobs/stylize.py", given | settings),
        # Kernels round differently for other numbers of pictures at once.
        "same_bytes": settings and settings.get("batch_size") == 1,
    }


def style_lineage(catalog: StyleCatalog, style: StyleVersion) -> Lineage:
    """Of a style: what it was trained from, on which base, with which settings and software, by which run.

    ``command`` trains it again from its reference, as that was cut for the base; None for a style that came ready-made.
    """
    run = _run(catalog.storage, style.run_id)
    trained = style.train_config and (run is None or run["job"] == "train_styles")
    # What is nearest changes with the catalog.
    begun = {"start_from": ",".join(style.started_from) or "none"} if "start_from" in style.train_config else {}
    given = {
        "storage": catalog.storage.uri,
        "base": run["config"].get("base", style.base_name) if run else style.base_name,
        "id": style.style_id,
        "image": style.reference_uri,
        "preset": style.preset,
        "train": style.train_config | begun,
    }
    return {
        "style": str(style),
        "checkpoint": {
            "uri": style.checkpoint_uri,
            "sha256": style.checkpoint_sha256,
            "format": style.checkpoint_format,
        },
        "base": {"name": style.base_name, "fingerprint": style.base_fingerprint},
        "reference": {"uri": style.reference_uri, "sha256": style.reference_sha256, "photo": style.photo_uri},
        "started_from": style.started_from,
        "training": {"preset": style.preset, "seconds": style.train_seconds, "device": style.device}
        | style.train_config,
        "software": style.software,
        "run": (run and _shown(run)) or {"run_id": style.run_id},
        "command": _command("jobs/train_styles.py", given) if trained else None,
    }


def flags_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Flags that a job reads back as ``values``; None stands for a flag's default and is left out."""
    for name, value in values.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from flags_of(value, f"{flag}.")
        elif isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif value is not None:
            yield f"--{flag}={json.dumps(value) if isinstance(value, list) else value}"


def _command(job: str, values: Mapping[str, Any]) -> str:
    return shlex.join(["python", job, *flags_of(values)])


def _run(storage: Storage, run_id: str) -> dict[str, Any] | None:
    """The record of a run; None if there is none below ``storage``."""
    try:
        return json.loads(storage.read_bytes(f"runs/{run_id}.json"))
    except NotFound:
        return None


def _shown(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: run.get(name) for name in _RUN_SHOWN}
