"""Lines of native code that are of no use to who runs a job."""

import os
import re
from pathlib import Path

import pytest

from cluster.runtime.native_output import without_lines


def printed(path: Path, *pieces: bytes) -> bytes:
    """What reaches a descriptor where ``pieces`` are written to it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with without_lines(re.compile("of no use"), descriptor):
            for piece in pieces:
                os.write(descriptor, piece)
        os.write(descriptor, b"after\n")
    finally:
        os.close(descriptor)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"first\nthis is of no use\nlast\n"], b"first\nlast\n"),
        ([b"this is of n", b"o use\n", b"shown\n"], b"shown\n"),
        ([b"no end of line"], b"no end of line"),
        ([b"\xff\n"] * 3, b"\xff\n" * 3),
        ([], b""),
        ([b"x" * 60_000 + b"\n"] * 20, (b"x" * 60_000 + b"\n") * 20),
    ],
)
def test_all_but_the_unwanted_lines_arrive_in_their_order(tmp_path: Path, pieces: list[bytes], expected: bytes) -> None:
    assert printed(tmp_path / "out", *pieces) == expected + b"after\n"


def test_a_body_that_fails_leaves_the_descriptor_as_it_was(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    before = os.fstat(descriptor)
    with pytest.raises(KeyboardInterrupt), without_lines(re.compile("x"), descriptor):
        raise KeyboardInterrupt
    assert os.fstat(descriptor).st_ino == before.st_ino
    os.close(descriptor)
