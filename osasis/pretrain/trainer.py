"""What every part of base pretraining shares: optimizer, schedule, EMA, exact resume. Knows nothing of Ray."""

import copy
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from osasis.errors import NotFinite
from osasis.precision import computing, current_precision, exact_float32
from osasis.seeding import generator, stable_seed

Wrap = Callable[[nn.Module], nn.Module]
"""Wraps the loss module for data-parallel training (DistributedDataParallel), or returns it as it is."""


class PretrainConfig(BaseModel):
    """How one part of a base is trained."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(gt=0, description="Optimizer steps.")
    batch_size: int = Field(gt=0, description="Images per optimizer step, all workers together.")
    accumulate: int = Field(1, gt=0, description="Micro-batches per step; lowers memory, not the result.")
    learning_rate: float = Field(3e-4, gt=0)
    warmup_steps: int = Field(200, ge=0)
    decay: Literal["constant", "linear", "cosine", "trapezoid"] = Field(
        "cosine", description="Course of the rate after the warm-up; trapezoid: constant, then linear over a fifth."
    )
    weight_decay: float = Field(0.0, ge=0)
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights, which are the ones kept.")
    noisy_weight: float = Field(
        1.0,
        ge=1,
        description="Largest weight of a noise level: 1/SNR, kept between 1 and this. 1: the release's loss. More"
        " teaches layout and colour, which a small network learns late: they are decided where noise hides all else.",
    )
    p2_gamma: float = Field(
        0.0,
        ge=0,
        description="P2 weighting (Choi et al. 2022): levels weigh (1 + SNR)^-gamma, so that little is spent on"
        " imperceptible noise. 0: none; 1: as the official photo prior.",
    )
    clip_gradient: float = Field(1.0, gt=0, description="Largest gradient norm.")
    precision: Literal["float32", "bf16"] = Field(
        "bf16", description="bf16: autocast of the network; weights and losses stay float32."
    )
    loaders: int = Field(0, ge=0, description="Threads that draw coming batches meanwhile; 0: drawn when needed.")
    seed: int = 0

    _former = model_validator(mode="before")(current_precision)

    def share(self, world: int) -> int:
        """Images of one worker's micro-batch.

        Raises:
            ValueError: the batch cannot be split evenly.
        """
        share, rest = divmod(self.batch_size, world * self.accumulate)
        if rest or not share:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be split evenly over {world} workers × {self.accumulate} "
                "micro-batches; make it a multiple"
            )
        return share

    def rate_at(self, step: int) -> float:
        """Learning rate of step ``step`` (0-based)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        factor = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": 0.5 + 0.5 * math.cos(math.pi * done),
            "trapezoid": min(1.0, 5 * (1 - done)),
        }[self.decay]
        return self.learning_rate * max(factor, 0.01)


class Trainer:
    """One part of a base in training.

    Subclasses give :meth:`draw`, some images of a step's batch as a pure function of their places in it, and a module
    whose forward turns them into a loss. So any number of workers and micro-batches sees the same batch, and a run
    resumed from :meth:`state_dict` continues bit for bit on the CPU.
    """

    def __init__(
        self, module: nn.Module, config: PretrainConfig, device: str = "cpu", wrap: Wrap = lambda m: m
    ) -> None:
        self.config = config
        exact_float32()
        self.device = torch.device(device)
        self.module = module.to(self.device).train()
        if self.device.type == "cpu" or torch.cuda.is_available():
            self.module = self.module.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.loss_module = wrap(self.module)
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.next_step = 0
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[int, int], Future[tuple[Tensor, ...]]] = {}

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with these weights of the network instead of random ones; moments and step count are reset."""
        for copy_of in (self.module, self.ema):
            copy_of.network.load_state_dict(weights)  # type: ignore[union-attr]

    def draw(self, step: int, places: range) -> tuple[Tensor, ...]:
        """Inputs of the loss module for the images at ``places`` of the batch of ``step``, on the CPU."""
        raise NotImplementedError  # an interface, not a gap: each part draws its own batches

    @property
    def averaged(self) -> nn.Module:
        """The network with its averaged weights, the ones a base keeps."""
        return self.ema.network  # type: ignore[return-value]

    def rng(self, step: int, place: int | str) -> torch.Generator:
        """The randomness of one place of one step's batch."""
        return generator(self.config.seed, type(self).__name__, step, place)

    def step(self, rank: int = 0, world: int = 1) -> dict[str, float]:
        """One optimizer step; ``rank`` of ``world`` draws its share of the batch.

        Raises:
            NotFinite: loss or gradient is NaN or infinite; nothing was updated.
            ValueError: the batch cannot be split evenly.
        """
        c = self.config
        rate = c.rate_at(self.next_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for micro in range(c.accumulate):
            batch = [x.to(self.device, non_blocking=True) for x in self._batch(micro, rank, world)]
            torch.manual_seed(stable_seed(c.seed, "dropout", self.next_step, micro, rank))
            with self._synced(micro == c.accumulate - 1), computing(c.precision, self.device):
                loss = self.loss_module(*batch) / c.accumulate
                loss.backward()
            total += loss.item()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), c.clip_gradient).item()
        if not math.isfinite(total + norm):
            raise NotFinite(f"{type(self).__name__} step {self.next_step}: loss {total}, gradient norm {norm}")
        self.optimizer.step()
        self._average()
        self.next_step += 1
        return {"step": self.next_step, "loss": total, "gradient_norm": norm, "learning_rate": rate}

    def _batch(self, micro: int, rank: int, world: int) -> tuple[Tensor, ...]:
        c = self.config
        if not c.loaders:
            return self.draw(self.next_step, self._places(micro, rank, world))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(c.loaders)
        for ahead in range(2 * c.loaders + 1):  # twice as many as threads, so that none waits for us
            step, later = divmod(self.next_step * c.accumulate + micro + ahead, c.accumulate)
            if step < c.steps and (step, later) not in self._ahead:
                self._ahead[step, later] = self._pool.submit(self.draw, step, self._places(later, rank, world))
        return self._ahead.pop((self.next_step, micro)).result()

    def _places(self, micro: int, rank: int, world: int) -> range:
        share = self.config.share(world)
        first = (micro * world + rank) * share
        return range(first, first + share)

    def _synced(self, last: bool) -> AbstractContextManager[Any]:
        no_sync = getattr(self.loss_module, "no_sync", None)
        return nullcontext() if last or no_sync is None else no_sync()

    def _average(self) -> None:
        # A young average would remember the random initialization: let it forget faster at first.
        decay = min(self.config.ema, (1 + self.next_step) / (10 + self.next_step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.module.parameters()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs: tensors and numbers only, so that ``weights_only`` loads it."""
        return {
            "module": self.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "next_step": self.next_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.next_step = state["next_step"]
        self._ahead.clear()
