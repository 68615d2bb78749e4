"""`dpt train` whose storage fails: it goes on, loses nothing that was saved, and is resumed bit for bit."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.faulty_s3 import FaultyS3, serving
from tests.support.faulty_training import DISTURBED_AT, RESUMING, STEPS, end_of, wait_until
from tests.support.sessions import kill_session

pytestmark = [pytest.mark.fault, pytest.mark.ray, pytest.mark.slow]

DROPPED = "is dropped: "
DISK_MIB, LEFT_MIB = 96, 3  # Left over is less than a checkpoint, and more than its first file.


@dataclass(frozen=True)
class SmallDisk:
    """A file system that commands after `before` find mounted at `inside`; for us it is `outside`."""

    before: list[str]
    inside: Path
    outside: Path

    def fill(self) -> None:
        """Leave little room."""
        space = os.statvfs(self.outside)
        size = space.f_bavail * space.f_frsize - LEFT_MIB * 2**20
        with (self.outside / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def clear(self) -> None:
        """Make room again."""
        (self.outside / "ballast").unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """In a mount namespace of its own, for which nobody has to be root."""
    inside = tmp_path / "disk"
    inside.mkdir()
    mount = f"mount -t tmpfs -o size={DISK_MIB}m none {inside} && echo mounted && exec sleep infinity"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline().strip() != "mounted":
                pytest.skip("this machine lets nobody mount a file system of his own")
            options = ("--user", "--mount", "--preserve-credentials", "--wd")
            enter = ["nsenter", f"--target={holder.pid}", *options]
            yield SmallDisk(enter, inside, Path(f"/proc/{holder.pid}/root{inside}"))
        finally:
            holder.kill()


def test_a_full_disk(place, undisturbed, small_disk):
    where = {"storage": str(small_disk.inside), "runs": str(small_disk.outside)}
    small = replace(place, before=small_disk.before, **where)
    with small.training("full") as (process, log):
        small.wait_for_checkpoint("full", process, log)
        small_disk.fill()
        printed = end_of(process, log, code=1)
    assert DROPPED in printed
    assert "No space left on device" in printed
    assert "dpt: the last checkpoint could not be written to " in printed
    assert f"step {STEPS}/{STEPS}  loss" in printed, "it ended before its last step"
    assert RESUMING not in printed, "it was started again, which makes no room"
    whole = small.checkpoints("full")
    assert DISTURBED_AT in whole
    assert max(whole) < STEPS
    left = [child for child in small.folder("full").children() if child.startswith("step_")]
    assert len(left) == len(whole), "a checkpoint that is none takes room"

    small_disk.clear()
    assert f"{RESUMING} {max(whole)}\n" in small.train_to_the_end("full", "--resume")
    assert small.curve("full") == undisturbed


@pytest.fixture
def s3() -> Iterator[FaultyS3]:
    with serving(["runs"]) as app:
        yield app


def test_object_storage_that_fails_now_and_then_and_is_away_for_a_while(place, undisturbed, s3):
    remote = replace(place, storage="s3://runs", runs="s3://runs", environment={"AWS_MAX_ATTEMPTS": "2"})
    s3.share = 0.05
    with remote.training("s3") as (process, log):
        remote.wait_for_checkpoint("s3", process, log)
        s3.down = True
        wait_until(lambda: DROPPED in log.read_text(), process, log)
        s3.down = False
        kill_session(process.pid)
        assert DROPPED in log.read_text()
    before = s3.faults.total()
    assert RESUMING in remote.train_to_the_end("s3", "--resume")
    assert s3.faults.total() > before
    assert remote.curve("s3") == undisturbed
