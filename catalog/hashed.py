"""A table of 128-bit hashes with fields of two bits for each, in sorted arrays: 16 bytes an entry, and its fields."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Packed = npt.NDArray[np.uint8]

_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)
_PARTS = 16
_BOUNDS = np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(60)
"""Hashes are kept in parts by their first four bits, so that to join runs takes little memory beside them."""


class HashTable:
    """Entries are added in bulk; of a field that is given twice the larger value holds.

    Each part lies in runs whose sizes at least double, joined as they come, so that N entries cost O(N log N).
    """

    def __init__(self, fields: int) -> None:
        self.fields = fields
        self._parts: list[list[_Run]] = [[] for _ in range(_PARTS)]

    def __len__(self) -> int:
        """Entries; those that lie in two runs count twice (see :meth:`join`)."""
        return sum(len(run.first) for runs in self._parts for run in runs)

    def add(self, first: Hashes, second: Hashes, field: npt.NDArray[Any], value: npt.NDArray[Any] | int) -> None:
        """For N hashes in two halves: ``value`` (1 to 3) of the field of this number."""
        packed = np.zeros((len(first), -(-self.fields // 4)), np.uint8)
        packed[np.arange(len(first)), field // 4] = np.asarray(value, np.uint8) << (2 * (field % 4)).astype(np.uint8)
        added = _joined(_Run(first, second, packed))
        for runs, (start, stop) in zip(self._parts, _parts_of(added.first), strict=True):
            if stop > start:
                part = slice(start, stop)
                runs.append(_Run(added.first[part].copy(), added.second[part].copy(), added.packed[part].copy()))
            while len(runs) > 1 and len(runs[-2].first) < 2 * len(runs[-1].first):
                _join_last(runs)

    def join(self) -> None:
        """Make one run of each part: lookups are quickest then."""
        for runs in self._parts:
            while len(runs) > 1:
                _join_last(runs)

    def find(self, first: Hashes, second: Hashes) -> npt.NDArray[np.uint8]:
        """[N, fields]: values, 0 of what was never added."""
        order = np.argsort(first)  # neighbours are found near each other in memory
        first, second = first[order], second[order]
        found = np.zeros((len(first), -(-self.fields // 4), 4), np.uint8)
        for runs, (start, stop) in zip(self._parts, _parts_of(first), strict=True):
            for run in runs if stop > start else ():
                places, rows = _places(run, first[start:stop], second[start:stop])
                rows = order[start + rows]
                found[rows] = np.maximum(found[rows], _unpacked(run.packed[places]))
        return found.reshape(len(first), -1)[:, : self.fields]


class _Run(NamedTuple):
    """Sorted by hash once joined: first, second [N]; packed [N, fields / 4], four fields a byte."""

    first: Hashes
    second: Hashes
    packed: Packed


def _parts_of(first: Hashes) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends among sorted hashes."""
    return pairwise([0, *np.searchsorted(first, _BOUNDS).tolist(), len(first)])


def _join_last(runs: list[_Run]) -> None:
    right, left = runs.pop(), runs.pop()
    first = np.concatenate([left.first, right.first])
    second = np.concatenate([left.second, right.second])
    runs.append(_joined(_Run(first, second, np.concatenate([left.packed, right.packed]))))


def _joined(run: _Run) -> _Run:
    """In order, and each hash once."""
    order: npt.NDArray[np.intp] = np.argsort(run.first, kind="stable")
    first, second = run.first[order], run.second[order]
    follows = first[1:] == first[:-1]
    if (follows & (second[1:] != second[:-1])).any():  # halves alike: chance, and seldom
        order = np.lexsort((run.second, run.first))
        first, second = run.first[order], run.second[order]
        follows = first[1:] == first[:-1]
    packed = run.packed[order]
    starts = np.flatnonzero(np.concatenate([[True], ~(follows & (second[1:] == second[:-1]))])[: len(first)])
    if len(starts) == len(first):
        return _Run(first, second, packed)
    largest = np.empty((len(starts), packed.shape[1]), np.uint8)
    for column in range(packed.shape[1]):  # one at a time: unpacked, all would take four times as much
        fields: Packed = np.maximum.reduceat(_unpacked(packed[:, column]), starts)
        largest[:, column] = (fields << _SHIFTS).sum(1, dtype=np.uint8)
    return _Run(first[starts], second[starts], largest)


def _unpacked(packed: Packed) -> npt.NDArray[np.uint8]:
    """[..., 4]"""
    fields: Packed = np.asarray(packed[..., None] >> _SHIFTS & 3, np.uint8)
    return fields


def _places(run: _Run, first: Hashes, second: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(places in the run, which of the given hashes stand there)."""
    places = np.searchsorted(run.first, first)
    rows = np.arange(len(first))
    while True:
        inside = places[rows] < len(run.first)
        rows = rows[inside]
        rows = rows[run.first[places[rows]] == first[rows]]
        other = run.second[places[rows]] != second[rows]
        if not other.any():
            return places[rows], rows
        places[rows[other]] += 1  # the same half, of another: go on to the next
