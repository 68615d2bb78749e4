"""Commands in sessions of their own, each with its own Ray: all of it can be killed, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def running(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A running command and its log; when the block ends, no process of its session is left."""
    # Not pytest's folder: Ray's sockets must have short paths.
    scratch = Path(tempfile.mkdtemp(prefix="dpt-"))
    log = scratch / "log"
    environment = {**os.environ, "RAY_TMPDIR": str(scratch)}
    environment.pop("RAY_ADDRESS", None)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process, log
    finally:
        kill_session(process.pid)
        process.wait(timeout=60)
        shutil.rmtree(scratch, ignore_errors=True)


def session_processes(leader: int) -> list[psutil.Process]:
    """The living processes of a session: the leader and all that Ray started for it."""
    return [psutil.Process(pid) for pid in psutil.pids() if _is_alive_in_session(pid, leader)]


def kill_session(leader: int) -> None:
    """SIGKILL every process of a session, and nothing else."""
    deadline = time.monotonic() + 60
    while alive := [pid for pid in psutil.pids() if _is_alive_in_session(pid, leader)]:
        assert time.monotonic() < deadline, f"processes {alive} survive SIGKILL"
        for pid in reversed(alive):  # youngest first: the workers, in the middle of what they do
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _is_alive_in_session(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
