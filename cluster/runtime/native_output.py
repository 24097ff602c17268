"""What native code of this process prints: it goes past Python's streams and loggers, straight to the descriptor."""

import os
import re
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_POLL_S = 0.1


@contextmanager
def without_lines(unwanted: re.Pattern[str], descriptor: int = 2) -> Iterator[None]:
    """While the body runs, lines that match ``unwanted`` do not reach ``descriptor``; all others do, in their order."""
    original, (reader, writer) = os.dup(descriptor), os.pipe()
    os.dup2(writer, descriptor)
    os.close(writer)
    ended = threading.Event()
    thread = threading.Thread(target=_pass_on, args=(reader, original, unwanted, ended), name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(original, descriptor)
        ended.set()  # the pipe's other end may live on in child processes, so that its end never comes
        thread.join()
        os.close(reader)
        os.close(original)


def _pass_on(reader: int, original: int, unwanted: re.Pattern[str], ended: threading.Event) -> None:
    rest, open_ = b"", True
    while open_:
        last = ended.is_set()  # asked first: what was written before is in the pipe then
        if select.select([reader], [], [], 0 if last else _POLL_S)[0]:
            data = os.read(reader, 1 << 16)
            *lines, rest = (rest + data).split(b"\n")
            shown = b"".join(line + b"\n" for line in lines if not unwanted.search(line.decode(errors="replace")))
            _write(original, shown)
            open_ = bool(data)
        else:
            open_ = not last
    _write(original, rest)


def _write(descriptor: int, data: bytes) -> None:
    with suppress(OSError):  # nobody reads it any more
        while data:
            data = data[os.write(descriptor, data) :]
