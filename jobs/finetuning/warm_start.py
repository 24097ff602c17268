"""Which styles of a catalog a training begins from."""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from catalog.filters import Condition
from catalog.store import StyleCatalog
from catalog.view import Question
from cluster.storage import Storage
from cluster.storage.cache import fetch
from osasis.base import Base, BaseSpec, clip_fingerprint, fingerprint
from osasis.checkpoint import ADAPTER_FORMAT, FORMAT, load_style, read_header
from osasis.errors import BaseMismatch
from osasis.settings import TrainConfig
from osasis.warm_start import WarmStart, evenly

_NEAREST = 2
_COLUMNS = ("style_id", "version", "checkpoint_uri", "checkpoint_sha256")


def is_file(start_from: str) -> bool:
    """Whether a file of jobs/train_start.py is meant, not styles of the catalog."""
    return start_from.endswith(".safetensors")


def file_key(path: Path, base: BaseSpec, config: TrainConfig) -> str:
    """Identity of what such a file holds: its sha256.

    Raises:
        OsasisError: it is not of this base, or of no use to trainings with these settings.
    """
    header = read_header(path)
    if header.base_fingerprint != fingerprint(base):
        raise BaseMismatch(f"{path} is of base {header.base_name} ({header.base_fingerprint}), not of {base.name}")
    if (header.format == ADAPTER_FORMAT) != bool(config.adapter_rank):
        kinds = ("adapters", "all weights") if header.format == ADAPTER_FORMAT else ("all weights", "adapters")
        raise BaseMismatch(f"{path} is a start of {kinds[0]}, and {kinds[1]} are trained (adapter_rank)")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def warm_start(storage: Storage, base: Base, config: TrainConfig, style_image: Tensor) -> WarmStart | None:
    """The styles that ``config.start_from`` means in the catalog at ``storage``; None to begin at the base.

    Nearest are those whose references' embeddings are nearest to that of ``style_image`` [1, 3, S, S]; where the
    catalog has none of this base and kind yet, there is no start.

    Raises:
        UnknownStyle, OsasisError: no such style, or it does not fit the base.
    """
    if config.start_from == "none":
        return None
    if is_file(config.start_from):
        return evenly([load_style(fetch(config.start_from), base)], [config.start_from])
    catalog = StyleCatalog.open(storage)
    if config.start_from == "nearest":
        embedding = base.clip.encode_image(style_image.to(base.device))[0].tolist()
        where = [
            Condition("base_fingerprint", "=", base.fingerprint),
            Condition("clip_encoder", "=", clip_fingerprint(base.spec) or ""),
            Condition("checkpoint_format", "=", ADAPTER_FORMAT if config.adapter_rank else FORMAT),
        ]
        question = Question(_COLUMNS, where, latest=True, near=embedding, limit=_NEAREST)
        rows: list[dict[str, Any]] = [*catalog.view().ask(question)]
    else:
        found = catalog.resolve(config.start_from)
        rows = [{name: getattr(version, name) for name in _COLUMNS} for version in found]
    if not rows:
        return None
    files = [fetch(row["checkpoint_uri"], sha256=row["checkpoint_sha256"]) for row in rows]
    names = [f"{row['style_id']}@{row['version']}" for row in rows]
    return evenly([load_style(file, base) for file in files], names)
