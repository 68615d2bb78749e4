"""`dpt train` whose storage fails: it goes on, loses nothing that was saved, and is resumed bit for bit."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.faulty_s3 import FaultyS3, serving
from tests.support.faulty_training import DISTURBED_AT, RESUMING, STEPS, end_of, wait_until
from tests.support.sessions import kill_session

pytestmark = [pytest.mark.fault, pytest.mark.ray, pytest.mark.slow]

DROPPED = "is dropped: "
LEFT = 3 * 2**20  # Less than a checkpoint, and more than its first file.


def test_a_full_disk(place, undisturbed, small_disk):
    where = {"storage": str(small_disk.inside), "runs": str(small_disk.outside)}
    small = replace(place, before=small_disk.before, **where)
    with small.training("full") as (process, log):
        small.wait_for_checkpoint("full", process, log)
        small_disk.fill(LEFT)
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
