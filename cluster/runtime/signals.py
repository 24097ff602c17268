"""How a process is asked to stop: Ctrl-C, SIGTERM (``ray job stop``, batch systems) and SIGHUP (the terminal closed).

The first signal raises :class:`Stopped` in the main thread, so that everything unwinds, closes and is recorded. Later
ones are ignored: a second Ctrl-C in the middle of the cleanup would leave Ray's processes behind. Should the cleanup
itself hang, the process and its children are killed after :data:`GRACE_S` seconds.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

GRACE_S = 30.0
"""Seconds for the cleanup; it takes two or three."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """One of the signals arrived. No ``Exception``, so that nothing but cleanup handles it."""


class _State:
    """Of this process: contexts entered; the timer that runs once a signal has come, and what is told of it.

    ``asked``: why a thread of this process sent the signal.
    """

    depth = 0
    watchdog: threading.Timer | None = None
    told = ""
    asked = ""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """While the body runs, a signal raises :class:`Stopped` in the main thread; in other threads this does nothing.

    May be nested: ``ray.init`` installs a handler of its own, so it is entered again after it. A signal that the
    process was started to ignore, as by ``nohup``, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _stop)
    _State.depth += 1
    try:
        yield
    except KeyboardInterrupt as error:
        if _State.watchdog and not isinstance(error, Stopped):
            raise Stopped(_State.told) from error  # Ray's waiting calls put one of their own in its place
        raise
    finally:
        _State.depth -= 1
        if _State.watchdog is None or _State.depth == 0:  # else contexts around this one are still cleaning up
            for number, handler in previous.items():
                with suppress(TypeError):  # None: it was not installed from Python
                    signal.signal(number, handler)
        if _State.watchdog and _State.depth == 0:
            _State.watchdog.cancel()
            _State.watchdog, _State.asked = None, ""


@contextmanager
def signals_held() -> Iterator[None]:
    """The body runs to its end; a signal that came meanwhile takes effect after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            with suppress(TypeError):
                signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def interrupt(why: str) -> None:
    """From another thread: raises :class:`Stopped` in the main thread, as a signal does, unless one came before."""
    if not _State.watchdog:
        _State.asked = why
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def stay_stopped() -> None:
    """After a signal, for a process that is about to exit: nothing interrupts the rest."""
    if _State.watchdog:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    if _State.watchdog:
        return
    _State.watchdog = threading.Timer(GRACE_S, _kill_everything)
    _State.watchdog.daemon = True
    _State.watchdog.start()
    by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    _State.told = _State.asked or f"stopped by {by}"
    raise Stopped(_State.told)


def _kill_everything() -> None:
    """Children first: nothing that this process started outlives it."""
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    with suppress(Exception):
        print(f"error: cleanup took more than {GRACE_S:.0f} s; killed", file=sys.stderr)
    os._exit(1)
