"""`dpt prepare` on a cluster of three nodes that loses a process must end with the bytes of a clean run.

A worker, a raylet or the driver is killed with SIGKILL at a seeded moment. What Ray can mend it mends; where
the job ends all the same, it is run again, as a user would.
"""

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from datasets_prep.storage.writing import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset
from tests.support.files import check_only_whole_files, contents, differing
from tests.support.sessions import ON_A_CLUSTER, kill_session, name_of, running, session_processes

pytestmark = [pytest.mark.fault, pytest.mark.ray]

SETTINGS = ("side=512", "samples_per_shard=2")
TRIALS = 20
QUICK = 1  # Trials of the quick suite: a raylet, and with it its worker.

TIMEOUT = 420
Victim = Literal["worker", "raylet", "driver"]
VICTIMS: tuple[Victim, ...] = ("raylet", "worker", "driver")


@dataclass(frozen=True)
class Trial:
    """Whom to kill, and when: `delay` seconds after the run began its `files`-th file."""

    victim: Victim
    files: int
    delay: float
    choice: float

    @staticmethod
    def seeded(number: int) -> "Trial":
        rng = random.Random(f"trial {number} on a cluster")
        victim = VICTIMS[number % len(VICTIMS)]
        return Trial(victim, rng.randint(1, 10), rng.uniform(0, 0.1), rng.random())


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_dataset("redweb", root, scenes=24, height=96, width=128, traps=True)
    return root


@pytest.fixture(scope="module")
def clean(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one undisturbed run on one machine writes."""
    out = tmp_path_factory.mktemp("clean")
    run_again(raw, out)
    return contents(out)


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=() if n < QUICK else pytest.mark.slow) for n in range(TRIALS)]
)
def test_the_bytes_are_those_of_a_clean_run(number, raw, clean, tmp_path):
    trial = Trial.seeded(number)
    with running([sys.executable, "-c", ON_A_CLUSTER, *arguments(raw, tmp_path)]) as (process, log):
        wait_for_files(tmp_path, trial.files, process, log)
        time.sleep(trial.delay)
        killed = kill(trial, process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TIMEOUT if trial.victim == "worker" else 200)
        mended = process.poll() == 0
        left = contents(tmp_path)
        if trial.victim == "worker":
            assert mended, log.read_text()
    print(f"{trial}: killed {killed}, {'mended by Ray' if mended else 'run again'}, {len(left)} files")
    check_only_whole_files(left, clean)
    if not mended:
        run_again(raw, tmp_path)
    after = contents(tmp_path)
    assert sorted(after) == sorted(clean)
    assert differing(after, clean) == []


def arguments(raw: Path, out: Path) -> list[str]:
    return ["prepare", "redweb", *SETTINGS, "--raw", str(raw), "--out", str(out)]


def run_again(raw: Path, out: Path) -> None:
    with running([sys.executable, "-m", "tune.cli", *arguments(raw, out)]) as (process, log):
        assert process.wait(timeout=TIMEOUT) == 0, log.read_text()


def wait_for_files(out: Path, count: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until so many files are there or being written."""
    deadline = time.monotonic() + TIMEOUT
    while len(contents_names(out)) < count:
        assert process.poll() is None, f"ended before anything could be killed: {log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.001)


def kill(trial: Trial, leader: int) -> str:
    """SIGKILL a process of the trial's kind; returns its name."""
    if trial.victim == "driver":
        kill_session(leader)
        return "the driver, and with it its cluster"
    wanted = "ray::" if trial.victim == "worker" else "raylet"
    found = [process for process in session_processes(leader) if name_of(process).startswith(wanted)]
    busy = [process for process in found if "Map" in name_of(process)] or found
    chosen = busy[int(trial.choice * len(busy))]
    name = name_of(chosen)
    chosen.send_signal(signal.SIGKILL)
    return name


def contents_names(out: Path) -> set[str]:
    return {str(path.relative_to(out)).split(PARTIAL_MARK)[0] for path in out.rglob("*") if path.suffix}
