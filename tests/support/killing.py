"""A command that writes a dataset, killed with all its Ray processes at seeded moments."""

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets_prep.manifest import LATEST_NAME
from datasets_prep.storage.folder import PARTIAL_MARK
from tests.support.sessions import kill_session, running


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


def plant_half_written_files(dataset: Path) -> None:
    """What a kill leaves in mid-write, in both folders that are written to: the kills may miss it."""
    for folder in (dataset, *(path for path in dataset.iterdir() if path.is_dir())):
        name = LATEST_NAME if folder == dataset else "train-00000.parquet"
        (folder / f"{name}{PARTIAL_MARK}0123456789abcdef").write_bytes(b"PAR1 and no more")


def files_begun(out: Path) -> set[Path]:
    """Files that are there or being written, by their final names."""
    found = set()
    # A walk of our own: names vanish while we look.
    for folder, _, names in os.walk(out):
        found |= {Path(folder, name.split(PARTIAL_MARK)[0]) for name in names}
    return found


def run_to_the_end(command: Sequence[str]) -> None:
    """Run the command, which must succeed."""
    with running(command) as (process, log):
        assert process.wait(timeout=400) == 0, log.read_text()


def run_until_killed(command: Sequence[str], dataset: Path, moment: Moment) -> None:
    """Run the command, which writes the folder `dataset`, and kill it at that moment."""
    dataset.mkdir(parents=True, exist_ok=True)
    before = files_begun(dataset)
    with running(command) as (process, log):
        deadline = time.monotonic() + 400
        while len(begun := files_begun(dataset) - before) < moment.files:
            if any(path.name == LATEST_NAME for path in begun):
                break  # all is written: fewer files were left to write than we wanted to see
            assert process.poll() is None, f"ended before it could be killed: {log.read_text()}"
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.001)
        time.sleep(moment.delay)
        kill_session(process.pid)
        assert process.wait(timeout=60) == -signal.SIGKILL, log.read_text()
