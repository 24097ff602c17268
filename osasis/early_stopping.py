"""When to end a finetuning: a score on contents that it does not see, and the weights that scored best."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from osasis.content import Content
from osasis.finetune import Finetuner
from osasis.settings import TrainConfig


@dataclass
class EarlyStopping:
    """Looks at a finetuning every ``check_every`` iterations. ``held_out``: contents that are not trained on."""

    config: TrainConfig
    held_out: Content
    scores: list[float] = field(default_factory=list)
    """Of every check; the smaller the better."""
    best_iteration: int = 0
    _best: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Weights of the best check."""

    def check(self, tuner: Finetuner) -> None:
        """To be called after every iteration."""
        done = tuner.next_iteration
        if done % self.config.check_every and done < self.config.iterations:
            return
        score = tuner.score(self.held_out)
        if score < min(self.scores, default=float("inf")):
            self.best_iteration = done
            self._best = {
                part: {name: weight.detach().clone() for name, weight in weights.items()}
                for part, weights in tuner.weights().items()
            }
        self.scores.append(score)

    @property
    def stopped(self) -> bool:
        """Whether the last ``patience`` checks brought nothing better."""
        after = len(self.scores) - 1 - self.scores.index(min(self.scores)) if self.scores else 0
        return after >= self.config.patience

    def keep_best(self, tuner: Finetuner) -> None:
        """Bring the best weights back; to be called at the end."""
        tuner.load_weights(self._best)

    def reason(self, iterations: int) -> str:
        """Why a training ended after so many iterations, in words."""
        best = f"the best score, {min(self.scores):.4g}, was at iteration {self.best_iteration}"
        why = f"no better score in {self.config.patience} checks" if self.stopped else "all iterations were done"
        return f"{why}; {best} of {iterations}"

    def metrics(self, iterations: int) -> dict[str, float]:
        return {
            "held_out_score": min(self.scores),
            "best_iteration": float(self.best_iteration),
            "iterations": float(iterations),
            "stopped_early": float(iterations < self.config.iterations),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores, "best_iteration": self.best_iteration, "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores, self.best_iteration, self._best = state["scores"], state["best_iteration"], state["best"]
