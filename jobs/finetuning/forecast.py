"""What a training will take, by what earlier runs with the same base and settings took; printed by ``--dry-run``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.runtime.run_record import records
from cluster.storage import Storage
from jobs.finetuning.admission import Usage
from osasis.settings import TrainConfig

_LOOKED_AT = 50
_NO_MATTER = ("iterations", "seed", "learning_rate", "spn_learning_rate", "rate_decay", "style_photo", "weights")
"""Fields that change what an iteration takes little or not at all."""


@dataclass
class Measured:
    """Collects what a run's styles took; of one that was resumed, the last part."""

    seconds: float = 0.0
    iterations: int = 0
    styles: int = 0

    def add(self, seconds: float, iterations: int) -> None:
        """``iterations``: 0 for a style that another job trained."""
        if iterations:
            self.seconds += seconds
            self.iterations += iterations
            self.styles += 1

    def metrics(self, usage: Usage | None) -> dict[str, float]:
        """For the run's record: worker seconds, and the most memory that a worker took, in GiB."""
        found: dict[str, float] = {}
        if self.styles:
            found["style_seconds"] = round(self.seconds / self.styles, 2)
            found["iteration_seconds"] = round(self.seconds / self.iterations, 4)
        if usage:
            found["worker_memory_gib"] = round(usage.memory / 2**30, 2)
            if usage.gpu_memory:
                found["worker_gpu_memory_gib"] = round(usage.gpu_memory / 2**30, 2)
        return found


@dataclass(frozen=True)
class Forecast:
    """``seconds`` of one worker for all styles; memory of a worker, in GiB; the run that these were measured in."""

    seconds: float
    memory_gib: float
    gpu_memory_gib: float
    measured_in: str

    def __str__(self) -> str:
        gpu = f", {self.gpu_memory_gib:.1f} GiB of a GPU's" if self.gpu_memory_gib else ""
        return (
            f"About {self.seconds / 60:.1f} min of one worker for all, who takes {self.memory_gib:.1f} GiB of "
            f"memory{gpu}, as measured in run {self.measured_in}."
        )

    def metrics(self) -> dict[str, float]:
        return {"forecast_seconds": round(self.seconds, 1), "forecast_memory_gib": self.memory_gib}


def forecast(
    storage: Storage, base: str, configs: Iterable[TrainConfig], how: Mapping[str, Any] | None = None
) -> Forecast | None:
    """By the newest run on this storage that trained styles on this base with settings that take as much.

    ``how``: what else in a record's ``config`` decides what a training takes. None: there is no such run, or the styles
    differ in what they take.
    """
    wanted = [config.model_dump(mode="json") for config in configs]
    works = {str(_work(config)) for config in wanted}
    if len(works) != 1:
        return None
    alike = {"base": base, **(how or {})}
    for record in records(storage, _LOOKED_AT):
        if record.job != "train_styles" or any(record.config.get(name) != value for name, value in alike.items()):
            continue
        trained = record.config.get("styles", {}).values()
        rate = record.metrics.get("iteration_seconds")
        if rate and {str(_work(config)) for config in trained} == works:
            metrics = record.metrics
            return Forecast(
                seconds=rate * sum(config["iterations"] for config in wanted),
                memory_gib=metrics.get("worker_memory_gib", 0.0),
                gpu_memory_gib=metrics.get("worker_gpu_memory_gib", 0.0),
                measured_in=record.run_id,
            )
    return None


def _work(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sorted(config.items()) if name not in _NO_MATTER}
