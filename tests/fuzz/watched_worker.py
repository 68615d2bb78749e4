"""Calls functions in a process of their own, where they may crash, hang or take all memory.

Limits are of the process that reads, not of the clock on the wall: a loaded machine changes no verdict.
"""

import contextlib
import faulthandler
import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil

from datasets_prep.errors import BadSample, UserError
from datasets_prep.storage.retries import StorageFailed

REFUSALS = (BadSample, UserError)  # What may come out of a reader besides a result.

_DEADLOCK_SECONDS = 300  # Without an answer for so long, a process that uses no processor time is stuck.

_LONGEST_REASON = 1000

_OUT_OF_MEMORY = ("insufficient memory", "bad_alloc", "memoryerror", "unable to allocate")
"""What libraries say when they got none: a larger machine would have given it."""


@dataclass(frozen=True)
class Limits:
    """What one call may use: seconds of processor time and bytes of resident memory."""

    cpu_seconds: float = 10.0
    memory_bytes: int = 2 * 2**30


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `read` if it returned, `refused` if it gave a reason for a refusal, else `failed`."""

    verdict: Literal["read", "refused", "failed"]
    reason: str = ""
    cpu_seconds: float = 0.0  # processor time of the call, all threads
    peak_bytes: int = 0  # largest resident memory of the process during the call, libraries included


class WatchedWorker:
    """One process that calls one function after another; replaced by a new one when it had to be stopped."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._process: Any = None

    def __enter__(self) -> "WatchedWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def call(self, function: Callable[..., None], *arguments: Any) -> Outcome:
        """Call a function that a fresh process can import."""
        if self._process is None:
            self._start()
        self._connection.send((function, arguments))
        if (stopped := self._wait()) is not None:
            self._stop()
            return stopped
        try:
            outcome: Outcome = self._connection.recv()
        except (EOFError, ConnectionResetError):
            return self._post_mortem()
        if outcome.peak_bytes > self._limits.memory_bytes:
            self._stop()
            return self._too_much(outcome.peak_bytes)
        return outcome

    def _wait(self) -> Outcome | None:
        """Wait for the answer; returns a failure if the process must not go on."""
        deadline = time.monotonic() + _DEADLOCK_SECONDS
        process = psutil.Process(self._process.pid)
        while not self._connection.poll(0.02):
            with contextlib.suppress(psutil.Error):  # it died: there is an answer of its own to that
                if (taken := process.memory_info().rss) > self._limits.memory_bytes:
                    return self._too_much(taken)
            if time.monotonic() > deadline:
                return Outcome("failed", f"no answer in {_DEADLOCK_SECONDS} seconds")
        return None

    def _too_much(self, taken: int) -> Outcome:
        return Outcome("failed", f"took {taken / 2**30:.1f} GiB of memory", peak_bytes=taken)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        log, self._log = tempfile.mkstemp(prefix="fuzz-worker-", suffix=".log")
        os.close(log)
        self._process = context.Process(target=_serve, args=(theirs, self._log, self._limits), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            Path(self._log).unlink()
            self._process = None

    def _post_mortem(self) -> Outcome:
        self._process.join()
        code = self._process.exitcode
        log = Path(self._log).read_text(errors="replace")[-4000:]
        self._stop()
        if code == -signal.SIGXCPU:
            most = f"{self._limits.cpu_seconds:g} seconds of processor time"
            return Outcome("failed", f"hung: more than {most}\n{log}")
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Outcome("failed", f"crashed: {cause}\n{log}")


# ---- in the process
def _serve(connection: Connection, log: str, limits: Limits) -> None:
    sink = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):  # libraries in C complain there
        os.dup2(sink, stream)
    faulthandler.enable(sink)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Memory that is asked for but never touched is no harm; the machine shall survive all the same.
    ceiling = _status_bytes("VmSize") + 8 * limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = connection.recv()
            connection.send(_measured(function, arguments, limits))


def _measured(function: Callable[..., None], arguments: tuple[Any, ...], limits: Limits) -> Outcome:
    start = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(start + limits.cpu_seconds), hard))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    verdict, reason = _judged(function, arguments)
    seconds = time.process_time() - start
    if seconds > limits.cpu_seconds:
        verdict, reason = "failed", f"hung: {seconds:.1f} seconds of processor time"
    return Outcome(verdict, reason, seconds, _status_bytes("VmHWM"))


def _judged(
    function: Callable[..., None], arguments: tuple[Any, ...]
) -> tuple[Literal["read", "refused", "failed"], str]:
    try:
        function(*arguments)
    except StorageFailed:  # a bad file must not stop the job
        return "failed", traceback.format_exc()
    except REFUSALS as error:
        reason = str(error)
        if not reason or len(reason.splitlines()) > 1 or len(reason) > _LONGEST_REASON:
            return "failed", f"refused without a reason of one line: {reason!r}"
        if any(words in reason.lower() for words in _OUT_OF_MEMORY):
            return "failed", f"refused only for want of memory: {reason}"
        return "refused", reason
    except BaseException:
        return "failed", traceback.format_exc()
    return "read", ""


def _status_bytes(field: str) -> int:
    """A size out of what Linux tells a process of itself."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
