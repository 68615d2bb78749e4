"""Training as a part of something larger: what a sweep wants of each of its trainings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.tracking.runs import Run
from pipelines.training.board import POLL_SECONDS


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
