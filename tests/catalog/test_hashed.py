"""catalog/hashed.py beside a dict."""

import numpy as np
import pytest

from catalog.hashed import HashTable


@pytest.mark.parametrize("halves", [2**64, 50], ids=["random hashes", "first halves that are often the same"])
def test_a_table_finds_what_a_dict_finds(halves: int) -> None:
    rng = np.random.default_rng(0)
    table, expected = HashTable(9), {}
    for size in (0, 400, 30, 1, 700):
        first, second = (rng.integers(0, most, size, np.uint64) for most in (halves, 40))
        field, value = rng.integers(0, 9, size), rng.integers(1, 4, size)
        table.add(first, second, field, value)
        for key in zip(first.tolist(), second.tolist(), field.tolist(), value.tolist(), strict=True):
            expected[key[:3]] = max(key[3], expected.get(key[:3], 0))
    asked_first, asked_second = (np.array([key[i] for key in [*expected, (7, 7, 0)]], np.uint64) for i in (0, 1))
    wanted = [
        [expected.get((a, b, field), 0) for field in range(9)]
        for a, b in zip(asked_first.tolist(), asked_second.tolist(), strict=True)
    ]
    assert table.find(asked_first, asked_second).tolist() == wanted
    table.join()
    assert table.find(asked_first, asked_second).tolist() == wanted
    assert len(table) == len({key[:2] for key in expected})
