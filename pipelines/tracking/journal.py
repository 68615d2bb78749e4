"""Metrics and pictures are sent to MLflow in the background, kept while it is down, and logged exactly once.

Training must not wait for a tracking server, nor lose a curve to its restart. Unsent points are part of every
checkpoint, so that a crash of the training process loses nothing either. A run that resumes from a checkpoint
repeats some steps, and a request that timed out may have been executed: before points are sent that could be
logged already, the server is asked which steps it has.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.tracking.runs import MetricPoint, Run

_MOST_AT_ONCE = 500
_MOST_PICTURES = 8
_HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's default is to retry a request for minutes: a server that is back would be noticed late."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class MetricJournal:
    """Sends the metrics of one run, in order.

    Args:
        run: that they are logged to.
        unsent: points that an earlier process could not send, as `unsent` returned them.
        say: called, from another thread, with a line when the server fails and when it is back.
    """

    def __init__(self, run: Run, unsent: list[list[Any]], say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        for name, value in _HTTP.items():
            os.environ.setdefault(name, value)
        self._waiting = [MetricPoint(*fields) for fields in unsent]
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._known: dict[str, set[int]] = {}
        self._changed, self._closing, self._away = threading.Condition(), False, False
        self._thread = threading.Thread(target=self._send_all, name="metrics", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue the `metrics`, name → value, of a `step`; returns at once."""
        now = int(time.time() * 1000)
        with self._changed:
            self._waiting += [MetricPoint(name, float(value), now, step) for name, value in metrics.items()]
            self._changed.notify()

    def log_picture(self, picture: NDArray[np.uint8], path: str) -> None:
        """Queue an (H, W, 3) uint8 RGB `picture` as the artifact `path`; returns at once.

        A crash may lose pictures, and only the newest are kept while MLflow is down.
        """
        with self._changed:
            self._pictures[path] = picture
            for old in list(self._pictures)[:-_MOST_PICTURES]:
                del self._pictures[old]
            self._changed.notify()

    def unsent(self) -> list[list[Any]]:
        """The points that are not sent yet, as plain data for a checkpoint."""
        with self._changed:
            return [list(point) for point in self._waiting]

    def close(self, seconds: float) -> list[list[Any]]:
        """Stop, after at most `seconds` for the rest to be sent; returns what is still unsent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        return self.unsent()

    def _send_all(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._pictures or self._closing)
                points = self._waiting[:_MOST_AT_ONCE]
            if not points and not self._pictures:
                return
            try:
                self._run.log_points([p for p in points if p.step not in self._steps_there(p.name)])
            except Exception as error:
                if not self._away:
                    kind = type(error).__name__
                    self._say(f"MLflow takes no metrics ({kind}); they are kept and sent later")
                self._away = True
                self._known.clear()
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            if self._away:
                self._say("MLflow takes metrics again")
            self._away = False
            for point in points:
                self._known[point.name].add(point.step)
            with self._changed:
                del self._waiting[: len(points)]
                pictures, self._pictures = self._pictures, {}
            for path, picture in pictures.items():
                self._send_picture(picture, path)

    def _send_picture(self, picture: NDArray[np.uint8], path: str) -> None:
        try:
            self._run.log_picture(picture, path)
        except Exception as error:  # a picture is not worth a run
            self._say(f"MLflow takes no {path}: {type(error).__name__}")

    def _steps_there(self, name: str) -> set[int]:
        """Steps of a metric that the server has; asked once, and again after every failure."""
        if name not in self._known:
            self._known[name] = self._run.logged_steps(name)
        return self._known[name]
