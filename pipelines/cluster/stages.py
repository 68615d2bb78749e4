"""Short output of a long job: a line for each stage; all else that its processes write is in a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO, cast

import ray
from rich.console import Console
from rich.live import Live
from rich.text import Text

from datasets_prep.errors import one_line
from pipelines.cluster.credentials import WithoutCredentials
from pipelines.terminal import PlainConsole

_NAME_WIDTH = 10
_STREAMS = (1, 2)
"""Descriptors of standard output and error."""


class Stages:
    """Stages of a job on the `console`, one after the other."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._name, self._line = "", ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as the stage `name`; then print its name, seconds and what was last said in it.

        In a terminal all that is said is shown until something else is.
        """
        self._name, self._line, start, end = name, "", time.perf_counter(), "failed"
        # By default Live takes standard output and error back from the log.
        live = Live(
            console=self.console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._now,
        )
        try:
            with live:
                yield
            end = self._line
        finally:
            line = f"{name:<{_NAME_WIDTH}}{time.perf_counter() - start:4.0f} s  {end}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Take a `line` on what the present stage does, or has done, and log it."""
        self._line = line
        print(one_line(f"{self._name}: {line}"), flush=True)

    def _now(self) -> Text:
        return Text(one_line(f"{self._name}  {self._line}"), no_wrap=True, overflow="ellipsis")


@contextmanager
def stages_with_log(log: Path) -> Iterator[Stages]:
    """Stages that are printed, while standard output and error of this process and its children go to `log`.

    Descriptors are replaced too, since warnings of Ray and MLflow also come from C++ and other processes. A
    Ray that was started in the block ends with it: its processes write to the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    had_ray, kept = ray.is_initialized(), [os.dup(stream) for stream in _STREAMS]
    with log.open("w", 1, encoding="utf-8") as file, os.fdopen(kept[0], "w", encoding="utf-8") as screen:
        logged, shown = (cast(TextIO, WithoutCredentials(stream)) for stream in (file, screen))
        console = PlainConsole(file=shown)
        _redirect([file.fileno()] * len(_STREAMS))
        try:
            with redirect_stdout(logged), redirect_stderr(logged):
                yield Stages(console)
        except BaseException:
            console.print(f"all that was logged until then: {log}", highlight=False, soft_wrap=True)
            raise
        finally:
            if not had_ray:
                ray.shutdown()
            _redirect(kept)
            os.close(kept[1])


def _redirect(targets: list[int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for stream, target in zip(_STREAMS, targets, strict=True):
        os.dup2(target, stream)
