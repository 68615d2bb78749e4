"""`dpt stereo`, killed with all its Ray processes and run again, must end with the bytes of one clean run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets_prep.storage.writing import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset
from tests.support.files import contents, differing
from tests.support.sessions import kill_session, running

pytestmark = [pytest.mark.fault, pytest.mark.ray, pytest.mark.slow]

KILLED_AFTER = (3, 20)  # How many files of the tree are there when each run is killed.


def test_a_killed_run_ends_as_a_clean_one(tmp_path):
    write_dataset("movies", tmp_path / "generated", scenes=3, height=128, width=192)
    videos, clean, killed = tmp_path / "generated" / "videos", tmp_path / "clean", tmp_path / "killed"
    with running(command(videos, clean)) as (process, log):
        assert process.wait(timeout=300) == 0, log.read_text()
    expected = contents(clean)
    for count in KILLED_AFTER:
        with running(command(videos, killed)) as (process, log):
            wait_for_files(killed, count, process, log)
            kill_session(process.pid)
        left = {name: data for name, data in contents(killed).items() if PARTIAL_MARK not in name}
        assert differing(left, expected) == []
        assert len(left) < len(expected), "killed too late to disturb anything"
    with running(command(videos, killed)) as (process, log):
        assert process.wait(timeout=300) == 0, log.read_text()
    assert contents(killed) == expected


def wait_for_files(root: Path, count: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while sum(len(names) for _, _, names in os.walk(root)) < count:
        assert process.poll() is None, f"ended before it could be killed: {log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.001)


def command(videos: Path, out: Path) -> list[str]:
    arguments = ("stereo", "movies", "--videos", str(videos), "--out", str(out))
    return [sys.executable, "-m", "tune.cli", *arguments]
