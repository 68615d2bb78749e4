"""Between the driver and the training processes: progress lines, reasons of failures, requests to stop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.signals import taking_the_first

if TYPE_CHECKING:  # the actor's process imports this module, and would spend seconds on MLflow
    from pipelines.tracking.runs import Run

POLL_SECONDS = 0.5
_HEARD_SECONDS, _ANSWER_SECONDS = 8.0, 3.0
"""How long ranks may take to hear that they should stop, and the board to answer."""


class ProgressBoard:
    """The actor that rank 0 and the driver share."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._stop = False
        self._heard = False
        self._failure: str | None = None

    def request_stop(self) -> bool:
        """Ask the training processes to save a checkpoint and end; returns whether they have heard it."""
        self._stop = True
        return self._heard

    def stop_requested(self, heeds: bool = False) -> bool:
        """Whether `request_stop` was called; the caller `heeds` it if it then ends after its step."""
        self._heard |= self._stop and heeds
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
def stopping_on_signals(board: Any) -> Iterator[list[int]]:
    """Ask the ranks by the `board` to save and end on a signal (`ray job stop`, a scheduler's notice).

    If none of them hears it, because they have just started, or validate, or Ray is gone, this process ends.

    Yields:
        a list that holds the signal's number once it was received.
    """
    until = 0.0

    def ask() -> bool:
        nonlocal until
        if not taken:
            return False
        until = until or time.monotonic() + _HEARD_SECONDS
        try:
            if ray.get(board.request_stop.remote(), timeout=_ANSWER_SECONDS):
                return True
        except ray.exceptions.GetTimeoutError:
            pass  # the machine may be busy
        except ray.exceptions.RayError:
            until = 0.1
        if time.monotonic() < until:
            return False
        os.kill(os.getpid(), taken[0])
        return True

    with taking_the_first() as taken, polling(ask):
        yield taken


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
