"""The progress line of a training run, from rank 0's machine to the terminal that started it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.tracking.runs import Run

POLL_SECONDS = 0.5


class ProgressBoard:
    """Between rank 0 and the driver: lines to show, why the run ended, and the driver's wish to stop it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._stop = False
        self._failure: str | None = None

    def request_stop(self) -> None:
        """Ask the training processes to save where they are and end."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Whether they shall."""
        return self._stop

    def fail(self, reason: str) -> None:
        """Give the reason why the run ended early, which no restart would mend."""
        self._failure = reason

    def failure(self) -> str | None:
        """That reason, if there is one."""
        return self._failure

    def write(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """All lines since the last call."""
        lines, self._lines = self._lines, []
        return lines


def open_board() -> Any:
    """Start a board; returns its actor handle. It is where the driver is: no other machine's end ends it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(ProgressBoard).options(num_cpus=0, scheduling_strategy=here).remote()


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


@dataclass(frozen=True, slots=True)
class Supervision:
    """How a training that somebody else looks after differs from one of its own.

    Attributes:
        run: its MLflow run, already started.
        stop_wanted: asked twice a second whether it shall save where it is and end.
        threads: CPU cores of each training process without GPU; the others belong to other trainings.
        callbacks: `ray.train.UserCallback`s, told of every report.
    """

    run: Run
    stop_wanted: Callable[[], bool]
    threads: int
    callbacks: Sequence[Any] = ()


@contextmanager
def stopping_when(board: Any, wanted: Callable[[], bool]) -> Iterator[list[bool]]:
    """Ask the ranks to save and end at the next step, once `wanted` says so.

    Yields:
        a list that is filled once they are asked.
    """
    asked: list[bool] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            if wanted():
                asked.append(True)
                board.request_stop.remote()
                return

    thread = threading.Thread(target=watch, name="supervision", daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join()
