"""Between the driver and the training processes: progress lines, reasons of failures, requests to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.polling import polling
from pipelines.cluster.signals import taking_the_first

if TYPE_CHECKING:  # the actor's process imports this module, and would spend seconds on MLflow
    from pipelines.tracking.runs import Run

_HEARD_SECONDS, _ANSWER_SECONDS, _LAST_SECONDS = 8.0, 3.0, 5.0
"""How long ranks may take to hear that they should stop, the board to answer, and all else to end then."""


class ProgressBoard:
    """The actor that rank 0 and the driver share."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._stop = False
        self._heeding: set[str] = set()
        self._failure: str | None = None

    def request_stop(self) -> bool:
        """Ask the training processes to save a checkpoint and end; returns whether any has heard it."""
        self._stop = True
        return bool(self._heeding)

    def stop_requested(self, heeds: bool = False, who: str = "") -> bool:
        """Whether `request_stop` was called; `who` asks `heeds` it if it then ends after its step."""
        (self._heeding.add if self._stop and heeds else self._heeding.discard)(who)
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
        with suppress(ray.exceptions.RayError):  # what the block raised says more
            pass_on()


@dataclass(frozen=True, slots=True)
class Supervision:
    """What a sweep wants of each of its training runs.

    Attributes:
        run: the MLflow run, already started.
        stop_wanted: polled twice a second, with whether the run heeds it; True asks the run to save a
            checkpoint and end.
        threads: CPU cores of each training process without a GPU; the others belong to other runs.
        callbacks: `ray.train.UserCallback`s, called with every report.
    """

    run: Run
    stop_wanted: Callable[[bool], bool]
    threads: int
    callbacks: Sequence[Any] = ()


@contextmanager
def stopping_when(board: Any, wanted: Callable[[bool], bool]) -> Iterator[list[int]]:
    """Ask the ranks by the `board` to save and end, once `wanted` returns True; it is polled twice a second.

    It is told whether the ranks have heard it, and are not at their end.

    Yields:
        a list that is no longer empty once they were asked.
    """
    asked: list[int] = []
    heard = False

    def ask() -> None:
        nonlocal heard
        if wanted(heard):
            asked.append(1)
            heard = ray.get(board.request_stop.remote())

    with polling(ask):
        yield asked
    wanted(False)


@contextmanager
def stopping_on_signals(board: Any, show: Callable[[str], None]) -> Iterator[list[int]]:
    """Ask the ranks by the `board` to save and end on a signal (`ray job stop`, a scheduler's notice).

    `show` takes a line that says so: a step may take seconds.

    If none of them hears it, because they have just started, or validate, or Ray is gone, this process ends;
    that of a sweep also once all trials that have heard it are saved.

    Yields:
        a list that holds the signal's number once it was received.
    """
    until, heard = 0.0, False

    def ask() -> bool:
        nonlocal until, heard
        if not taken:
            return False
        if not until:
            show("stopping after this step, with a checkpoint; Ctrl-C again ends at once")
            until = time.monotonic() + _HEARD_SECONDS
        try:
            heard = ray.get(board.request_stop.remote(), timeout=_ANSWER_SECONDS)
        except ray.exceptions.GetTimeoutError:
            pass  # the machine may be busy
        except ray.exceptions.RayError:
            until, heard = 0.1, False
        if heard:
            until = max(until, time.monotonic() + _LAST_SECONDS)
        if time.monotonic() < until:
            return False
        os.kill(os.getpid(), taken[0])
        return True

    with taking_the_first() as taken, polling(ask):
        yield taken
