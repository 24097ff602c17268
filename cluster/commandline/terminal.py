"""Output that cannot stop a job: whatever becomes of the terminal, the work and its exit code stay the same."""

import codecs
import io
import os
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━═╌", "-"), **dict.fromkeys("│┃║", "|"), **dict.fromkeys("╴╸╺╶", "-"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇┳┻╋╭╮╰╯┠┨┯┷┿╞╡╪", "+"),
        "…": "...", "→": "->", "×": "x", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "•": "*", "·": "-",
    }
)  # fmt: skip


class _Lenient(io.FileIO):
    """Drops what cannot be written: a pipe whose reader has ended, a terminal that was closed, a full disk."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(memoryview(data))  # type: ignore[arg-type]


def plain(error: UnicodeError) -> tuple[str, int]:
    """An encoding's error handler: the nearest ASCII characters instead of those that the terminal cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    shown = unicodedata.normalize("NFKD", text)
    return "".join(c if c.isascii() else "" if unicodedata.combining(c) else "?" for c in shown), error.end


def lenient_output() -> None:
    """Replace this process's standard streams by such that never raise. Call it first of all.

    A closed stream becomes the null device: otherwise the next file that is opened would take its number, and receive
    what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = _replaced(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _replaced(sys.stderr, sys.__stderr__, 2)


def _replaced(stream: TextIO | None, original: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # for the rest of the process
    if stream is not original or not isinstance(stream, io.TextIOWrapper):  # a test's
        return stream
    stream.flush()
    codecs.register_error("osasis.plain", plain)  # type: ignore[arg-type]
    return io.TextIOWrapper(
        io.BufferedWriter(_Lenient(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors="osasis.plain",
        line_buffering=True,
        write_through=number == 2,
    )
