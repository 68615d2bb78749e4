"""`dpt stereo`, killed with all its Ray processes and run again, must end with the bytes of one clean run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from datasets_prep.storage import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset

pytestmark = pytest.mark.slow

KILLED_AFTER = (3, 20)
"""How many files of the tree are there when each run is killed."""


def test_a_killed_run_ends_as_a_clean_one(tmp_path: Path) -> None:
    write_dataset("movies", tmp_path / "generated", scenes=3, height=128, width=192)
    videos, clean, killed = tmp_path / "generated" / "videos", tmp_path / "clean", tmp_path / "killed"
    with running(videos, clean) as (process, log):
        assert process.wait(timeout=300) == 0, log.read_text()
    expected = contents(clean)
    for count in KILLED_AFTER:
        with running(videos, killed) as (process, log):
            wait_for_files(killed, count, process, log)
            kill_session(process.pid)
        left = {name: data for name, data in contents(killed).items() if PARTIAL_MARK not in name}
        assert [name for name in left if left[name] != expected.get(name)] == []
        assert len(left) < len(expected), "killed too late to disturb anything"
    with running(videos, killed) as (process, log):
        assert process.wait(timeout=300) == 0, log.read_text()
    assert contents(killed) == expected


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def wait_for_files(root: Path, count: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while sum(len(names) for _, _, names in os.walk(root)) < count:
        assert process.poll() is None, f"ended before it could be killed: {log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.001)


@contextmanager
def running(videos: Path, out: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`dpt stereo` with a Ray of its own; when the block ends, no process of it is left."""
    # Not pytest's folder: Ray's sockets must have short paths.
    scratch = Path(tempfile.mkdtemp(prefix="dpt-"))
    log = scratch / "log"
    environment = {**os.environ, "RAY_TMPDIR": str(scratch)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "pipelines.cli", "stereo", "movies"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--videos", str(videos), "--out", str(out)],
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        kill_session(process.pid)
        process.wait(timeout=10)
        shutil.rmtree(scratch, ignore_errors=True)


def kill_session(leader: int) -> None:
    """SIGKILL every process of a session: the leader and all that Ray started for it, and nothing else."""
    deadline = time.monotonic() + 10
    while alive := [pid for pid in psutil.pids() if is_alive_in_session(pid, leader)]:
        assert time.monotonic() < deadline, f"processes {alive} survive SIGKILL"
        for pid in reversed(alive):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def is_alive_in_session(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
