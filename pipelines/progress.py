"""The progress line of a training run, from rank 0's machine to the terminal that started it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import ray

POLL_SECONDS = 0.5


class ProgressBoard:
    """Holds the lines that rank 0 has written and the driver has not yet read."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """All lines since the last call."""
        lines, self._lines = self._lines, []
        return lines


def open_board() -> Any:
    """Start a board; returns its actor handle."""
    return ray.remote(num_cpus=0)(ProgressBoard).remote()


@contextmanager
def showing(board: Any, show: Callable[[str], None]) -> Iterator[None]:
    """Show the board's lines as they come, until the block ends."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            for line in ray.get(board.take.remote()):
                show(line)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for line in ray.get(board.take.remote()):
            show(line)


class Pace:
    """Speed and remaining time of a loop over steps, since its own start."""

    def __init__(self, first_step: int, last_step: int) -> None:
        self._first, self._last = first_step, last_step
        self._start = time.perf_counter()

    def remaining(self, step: int) -> str:
        """Time left after `step` steps are done, as h:mm:ss."""
        done = max(1, step - self._first)
        seconds = (time.perf_counter() - self._start) / done * (self._last - step)
        return str(timedelta(seconds=round(seconds)))
