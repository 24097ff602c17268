"""Several processes that train one style: each computes the gradients of some of its contents.

All hold the same weights, see the same x_t and make the same steps: what they compute is summed before each. Sums are
in another order than in one process, so that results are equal to rounding.
"""

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

T = TypeVar("T")

_PATIENCE = datetime.timedelta(days=7)
"""How long one process waits for another, which may write files or wait for a lease; one that dies ends the others."""


class PeerFailed(Exception):
    """Another process of this style cannot go on with it."""


class Ranks:
    """This process is ``rank`` of ``count``; the first has the say, and alone it needs nobody."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> Tensor:
        """Indices of this process's part of so many contents."""
        return torch.arange(count).tensor_split(self.count)[self.rank]

    def sum_gradients(self, parameters: Sequence[Parameter]) -> None:
        """Sum each parameter's gradient over all processes."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        whole = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))  # at once: many are small
        for gradient, part in zip(gradients, whole.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def sum(self, tensor: Tensor) -> Tensor:
        """Over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def same(self, tensor: Tensor) -> Tensor:
        """The first process's, in place."""
        if self.count > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def said(self, value: T) -> T:
        """What the first process says; a small object. Waits for it."""
        if self.count == 1:
            return value
        told: list[Any] = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]  # type: ignore[no-any-return]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    @contextmanager
    def all_well(self) -> Iterator[None]:
        """What goes wrong in one process's body ends all of them.

        Raises:
            PeerFailed: it went wrong in another.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        if self.any(failed is not None):
            raise failed or PeerFailed("another process of this style could not go on")


ALONE = Ranks()


@contextmanager
def joined(rank: int, count: int, meeting: str) -> Iterator[Ranks]:
    """Join the other processes, which are on this machine.

    Args:
        meeting: the path of a file that does not exist yet, the same for all.
    """
    if count == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=_PATIENCE)
    try:
        yield Ranks(rank, count)
    finally:
        dist.destroy_process_group()
