"""One tiny style in training by several processes."""

import multiprocessing
from pathlib import Path
from typing import Any

import torch

from osasis.base import load_base
from osasis.content import Content
from osasis.finetune import Finetuner
from osasis.ranks import Ranks, joined
from osasis.settings import train_config
from osasis.style_training import StyleTraining, training_content
from tests.support.tiny import SIZE


def training(base: Path, ranks: Ranks, overrides: dict[str, Any]) -> StyleTraining:
    loaded = load_base(base, precision="float64")
    config = train_config("official", loaded.spec.train_defaults, overrides)
    pictures = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    stored = training_content(loaded, config)
    content = Content(stored.photos.double(), stored.z_in.double(), stored.x_t0.double())
    return StyleTraining(loaded, pictures[:1], config, photo=pictures[1:], content=content, ranks=ranks)


def trained(base: Path, ranks: Ranks, overrides: dict[str, Any]) -> dict[str, Any]:
    """Losses of each iteration, and the weights."""
    style = training(base, ranks, overrides)
    before = _flat(style.finetuner)
    losses = list(style.run())
    memory_use = str(style.finetuner.memory_use)
    return {"losses": losses, "before": before, "weights": _flat(style.finetuner), "memory_use": memory_use}


def _flat(tuner: Finetuner) -> torch.Tensor:
    """All weights that are trained."""
    return torch.cat([weight.flatten() for part in tuner.weights().values() for weight in part.values()])


def together(base: Path, count: int, folder: Path, **overrides: Any) -> list[dict[str, Any]]:
    """:func:`trained` by so many processes; of each, or its error as ``{"error": text}``."""
    context = multiprocessing.get_context("spawn")
    place = str(folder / "meeting")
    members = [
        context.Process(target=_member, args=(base, rank, count, place, overrides, folder / f"{rank}.pt"))
        for rank in range(count)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join(timeout=120)
        assert member.exitcode == 0, member.exitcode
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _member(base: Path, rank: int, count: int, place: str, overrides: dict[str, Any], out: Path) -> None:
    torch.set_num_threads(1)
    short_of_memory = overrides.pop("short_of_memory", None)
    if rank == short_of_memory:
        _limit()
    with joined(rank, count, place) as ranks:
        try:
            found = trained(base, ranks, overrides)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
    torch.save(found, out)


def _limit() -> None:
    """Let no gradient fit that is not computed of one content at a time."""
    predict = Finetuner.predict

    def limited(self: Finetuner, x_t: torch.Tensor, *rest: Any) -> Any:
        if torch.is_grad_enabled() and len(x_t) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(self, x_t, *rest)

    Finetuner.predict = limited  # type: ignore[method-assign]
