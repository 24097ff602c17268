"""Randomness that belongs to the item, not to the worker.

A draw is keyed by what it is for (run, image, step), so that re-sharding, retry and resume repeat it.
"""

import hashlib

import torch


def stable_seed(*key: object) -> int:
    """63-bit seed from any printable key; the same in every process and release (unlike ``hash``)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*key: object) -> torch.Generator:
    """A CPU generator seeded by ``key``. Noise is drawn on the CPU and moved, so that devices agree."""
    return torch.Generator().manual_seed(stable_seed(*key))
