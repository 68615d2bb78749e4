"""`dpt prepare`, killed with all its Ray processes and run again, must end with the bytes of one clean run.

Nothing is simulated: the command runs as a user runs it, and SIGKILL hits its driver, the raylet and every
worker. The moments are seeded, but land where the machine's speed puts them.
"""

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets_prep.manifest import LATEST_NAME
from datasets_prep.storage.writing import PARTIAL_MARK
from datasets_prep.synthetic import write_dataset
from tests.support.files import check_only_whole_files, contents, differing
from tests.support.sessions import kill_session, running

pytestmark = [pytest.mark.fault, pytest.mark.ray]

SETTINGS = ("side=64", "samples_per_shard=2")
ROUNDS = 10  # Each round kills twice; the first one runs in the quick suite, all of them are twenty kills.


@dataclass(frozen=True)
class Moment:
    """When to kill: `delay` seconds after the run began writing its `files`-th file (0: after its start)."""

    files: int
    delay: float


def moments(round_number: int) -> list[Moment]:
    """Two kills. The first round's hit the writing of shards, later ones also start-up and the end."""
    rng = random.Random(f"kills of round {round_number}")
    if round_number == 0:
        # The first file of a first run is the listing of the raw folder.
        return [Moment(rng.randint(1, 4) + first, rng.uniform(0, 0.005)) for first in (1, 0)]
    files = [rng.randint(0, 6), rng.randint(0, 12)]
    return [Moment(count, rng.uniform(0, 0.05) if count else rng.uniform(0, 6)) for count in files]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    # With the defects of the real set, so that the quarantine table has something to say.
    write_dataset("redweb", root, scenes=24, height=96, width=128, traps=True)
    return root


@pytest.fixture(scope="module")
def clean(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed run writes."""
    out = tmp_path_factory.mktemp("clean")
    run_to_the_end(raw, out)
    return out


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=pytest.mark.slow if n else ()) for n in range(ROUNDS)]
)
def test_a_killed_run_ends_as_a_clean_one(number, raw, clean, tmp_path):
    expected = contents(clean)
    for moment in moments(number):
        run_until_killed(raw, tmp_path, moment)
        left = contents(tmp_path)
        half = [name for name in left if PARTIAL_MARK in name]
        print(f"{moment}: {len(left)} of {len(expected)} files, {len(half)} half-written")
        check_only_whole_files(left, expected)
        if number == 0:
            assert not any(name.endswith(LATEST_NAME) for name in left), "killed too late to disturb anything"
    plant_half_written_files(tmp_path)
    run_to_the_end(raw, tmp_path)
    after = contents(tmp_path)
    assert sorted(after) == sorted(expected)
    assert differing(after, expected) == []


def test_a_finished_dataset_is_left_untouched(raw, clean):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in clean.rglob("*")}
    run_to_the_end(raw, clean)
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in clean.rglob("*")}
    assert after == before


# ---- what is on the disk
def plant_half_written_files(out: Path) -> None:
    """What a kill leaves in mid-write, in both folders that are written to: the kills above may miss it."""
    for folder in (out / "redweb", *(path for path in (out / "redweb").iterdir() if path.is_dir())):
        name = LATEST_NAME if folder.name == "redweb" else "train-00000.parquet"
        (folder / f"{name}{PARTIAL_MARK}0123456789abcdef").write_bytes(b"PAR1 and no more")


def files_begun(out: Path) -> set[Path]:
    """Files that are there or being written, by their final names."""
    found = set()
    # A walk of our own: names vanish while we look.
    for folder, _, names in os.walk(out):
        found |= {Path(folder, name.split(PARTIAL_MARK)[0]) for name in names}
    return found


# ---- the command, in a session of its own
def command(raw: Path, out: Path) -> list[str]:
    arguments = ("prepare", "redweb", *SETTINGS, "--raw", str(raw), "--out", str(out))
    return [sys.executable, "-m", "tune.cli", *arguments]


def run_to_the_end(raw: Path, out: Path) -> None:
    with running(command(raw, out)) as (process, log):
        assert process.wait(timeout=400) == 0, log.read_text()


def run_until_killed(raw: Path, out: Path, moment: Moment) -> None:
    (out / "redweb").mkdir(exist_ok=True)
    before = files_begun(out)
    with running(command(raw, out)) as (process, log):
        deadline = time.monotonic() + 400
        while len(begun := files_begun(out) - before) < moment.files:
            if any(path.name == LATEST_NAME for path in begun):
                break  # all is written: fewer files were left to write than we wanted to see
            assert process.poll() is None, f"ended before it could be killed: {log.read_text()}"
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.001)
        time.sleep(moment.delay)
        kill_session(process.pid)
        assert process.wait(timeout=60) == -signal.SIGKILL, log.read_text()
