"""Something looked after in a thread, every few moments, while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ray.exceptions import RayError

POLL_SECONDS = 0.5

_PATIENCE = 5.0
"""Seconds that a block waits at its end for an action: one that asks a Ray that is gone takes a minute."""


@contextmanager
def polling(action: Callable[[], object], seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Call `action` every few `seconds` in a thread, until it returns a true value or the block ends.

    It also ends when Ray fails, which the block then meets itself.
    """
    done = threading.Event()

    def poll() -> None:
        with suppress(RayError):
            while not done.wait(seconds) and not action():
                pass

    thread = threading.Thread(target=poll, name="polling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_PATIENCE)
