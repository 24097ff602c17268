"""Clocks of a device: what work costs on it, and how much of that time it computed."""

from collections.abc import Callable
from statistics import median

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from osasis.pretrain.cost import matmul_rate, timed

_ROUNDS = 3
"""Of which the median counts on a GPU. On a CPU the processor's own time is taken, once."""


def on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Of the processor, on one thread; or of the wall until the GPU is through, once it is warm."""
    if not on_gpu(device):
        return timed(work, device.type)
    work()
    return median(timed(work, device.type) for _ in range(_ROUNDS))


def busy_of(work: Callable[[], object], device: torch.device) -> float | None:
    """Share of the time of ``work`` in which a kernel ran on the GPU; None where that is not known.

    Kernels are timed by the profiler, and the whole without it.
    """
    seconds = seconds_of(work, device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize(device)
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation and not event.name.startswith("Mem")
    ]
    return covered(kernels) / 1e6 / seconds if kernels else None


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of what spans cover, each counted once where they overlap."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def rate_of(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s that the device multiplies matrices with, on one thread or the whole GPU."""
    return matmul_rate(device.type, dtype, side=8192 if on_gpu(device) else 1024) / 1e9
