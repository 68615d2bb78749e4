"""Between the driver and the training processes: progress lines, reasons of failures, requests to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:  # the actor's process imports this module, and would spend seconds on MLflow
    from pipelines.tracking.runs import Run

POLL_SECONDS = 0.5


class ProgressBoard:
    """The actor that rank 0 and the driver share."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._stop = False
        self._failure: str | None = None

    def request_stop(self) -> None:
        """Ask the training processes to save a checkpoint and end."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Whether `request_stop` was called."""
        return self._stop

    def fail(self, reason: str) -> None:
        """Record the `reason` why the run ended early, one that a restart would not fix."""
        self._failure = reason

    def failure(self) -> str | None:
        """The reason given to `fail`, if any."""
        return self._failure

    def write(self, line: str) -> None:
        """Append a progress `line`."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """All lines since the last call."""
        lines, self._lines = self._lines, []
        return lines


def open_board() -> Any:
    """Actor handle of a new board on the driver's node, so that no other node's failure ends it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(ProgressBoard).options(num_cpus=0, scheduling_strategy=here).remote()


@contextmanager
def showing(board: Any, show: Callable[[str], None]) -> Iterator[None]:
    """Pass the lines of a `board` to `show` as they come, until the block ends."""

    def pass_on() -> None:
        for line in ray.get(board.take.remote()):
            show(line)

    try:
        with polling(pass_on):
            yield
    finally:
        pass_on()


@dataclass(frozen=True, slots=True)
class Supervision:
    """What a sweep wants of each of its training runs.

    Attributes:
        run: the MLflow run, already started.
        stop_wanted: polled twice a second; True asks the run to save a checkpoint and end.
        threads: CPU cores of each training process without a GPU; the others belong to other runs.
        callbacks: `ray.train.UserCallback`s, called with every report.
    """

    run: Run
    stop_wanted: Callable[[], bool]
    threads: int
    callbacks: Sequence[Any] = ()


@contextmanager
def stopping_when(board: Any, wanted: Callable[[], bool]) -> Iterator[list[int]]:
    """Ask the ranks by the `board` to save and end, once `wanted` returns True; it is polled twice a second.

    Yields:
        a list that is no longer empty once they were asked.
    """
    asked: list[int] = []

    def ask() -> bool:
        if wanted():
            asked.append(1)
            board.request_stop.remote()
        return bool(asked)

    with polling(ask):
        yield asked


@contextmanager
def stopping_on_sigterm(board: Any) -> Iterator[list[int]]:
    """Ask the ranks by the `board` to save and end on SIGTERM (`ray job stop`, a scheduler's notice).

    Yields:
        a list that holds the signal's number once it was received.
    """
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        board.request_stop.remote()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def polling(action: Callable[[], object], seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Call `action` every few `seconds` in a thread, until it returns a true value or the block ends."""
    done = threading.Event()

    def poll() -> None:
        while not done.wait(seconds) and not action():
            pass

    thread = threading.Thread(target=poll, name="polling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
