"""SIGINT, SIGTERM and SIGHUP end a command with one line, nothing half-written, and the code 128 + number.

The first signal raises `Stopped` in the main thread, and what unwinds closes files, MLflow runs and Ray. More
signals change nothing meanwhile: schedulers send them to a process and again to its group. After `PATIENCE`
the process and its children are ended wherever they are. A block may take the first signal as a request
(`taking_the_first`), as training does, which saves a checkpoint.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

PATIENCE = 8.0
"""Seconds from `Stopped` to the end of the process, at most."""

_SAME = 1.0
"""Seconds in which further signals count as the same one."""

_LATER = 0.05
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []
_unwound: list[int] = []
_closing: list[Callable[[], None]] = []
_wake: list[int] = []
"""Where to write a byte for the thread that ends the process; starting one in a handler could deadlock."""


class Stopped(SystemExit):
    """Raised in the main thread by a signal."""


def handle() -> None:
    """Have these signals end this process as the module says, but those that its parent had it ignore."""
    _received.clear()
    _unwound.clear()
    sys.unraisablehook = _raise_again
    if not _wake:
        waiting, writing = os.pipe()
        _wake.append(writing)
        threading.Thread(target=_end_late, args=(waiting,), name="signals", daemon=True).start()
    for number in _NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def received() -> int | None:
    """Number of the first signal since `handle`, for whoever then says so: more of them are ignored."""
    for number in _NUMBERS if _received else ():
        signal.signal(number, signal.SIG_IGN)  # Python itself would take back a handler on its way out
    if _received:
        _unwound.extend(_received)
        atexit.register(_leave)  # the last one registered is the first to run
    return _received[0] if _received else None


def farewell(number: int) -> str:
    """What is said of a command that the signal of that `number` ended."""
    return f"stopped by {signal.Signals(number).name}; what is finished is kept"


@contextmanager
def closing(close: Callable[[], None]) -> Iterator[None]:
    """Call `close` should the process be ended in the block without unwinding it."""
    _closing.append(close)
    try:
        yield
    finally:
        _closing.remove(close)


@contextmanager
def taking_the_first() -> Iterator[list[int]]:
    """In the block the first signal is only noted; later ones do what they did before.

    Yields:
        a list that has the signal's number once it was received.
    """
    taken: list[int] = []
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    since = 0.0

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal since
        handler = before[signal.Signals(number)]
        if not taken:
            since = time.monotonic()
            taken.append(number)
        elif time.monotonic() - since > _SAME:
            (handler if callable(handler) else _end)(number, frame)

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, take)
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if taken and _wake:
            _begin_end(taken[0])


def _end(number: int, _: FrameType | None) -> None:
    if not _received:
        _begin_end(number)
        raise Stopped(128 + number)


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """What a handler raises in a destructor or a callback of C is lost: then once more, out of there."""
    if isinstance(unraisable.exc_value, Stopped):
        signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, _LATER)
    else:
        sys.__unraisablehook__(unraisable)


def _leave() -> None:
    """End here after a signal: Ray's end may abort, and the interpreter's takes seconds, unwatched."""
    if _received:
        _kill_children()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + _received[0])


def _raise(_: int, __: FrameType | None) -> None:
    raise Stopped(128 + _received[0])


def _begin_end(number: int) -> None:
    _received.append(number)
    for pipe in _wake:
        os.write(pipe, bytes([number]))


def _end_late(waiting: int) -> None:
    """End this process and its children `PATIENCE` after a signal, without unwinding what hangs."""
    number = os.read(waiting, 1)[0]
    time.sleep(PATIENCE)
    if not _received:  # `handle` was called again
        return _end_late(waiting)
    for close in reversed(_closing):
        with suppress(Exception):
            close()
    if not _unwound:
        os.write(2, f"dpt: {farewell(number)}\n".encode())
    _kill_children()
    os._exit(128 + number)


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
