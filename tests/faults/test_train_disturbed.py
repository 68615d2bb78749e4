"""`dpt train`, disturbed in every way we know, must end with the loss curve of an undisturbed run.

Nothing is simulated: signals hit real processes, of a real cluster where machines are lost. The curve is read
back from MLflow, where no point may be missing or double. With as many ranks as before it is the same bit for
bit; with another number up to rounding, for every batch holds the same samples.
"""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support import faulty_training as faulty
from tests.support.sessions import kill_session

pytestmark = [pytest.mark.fault, pytest.mark.ray]


@contextmanager
def disturbing(place: faulty.Place, name: str, *more: str, says: str) -> Iterator[int]:
    """A run that has a checkpoint, for the block to disturb; it must say what died, resume and end."""
    with place.training(name, *more) as (process, log):
        place.wait_for_checkpoint(name, process, log)
        yield process.pid
        printed = faulty.end_of(process, log)
        assert faulty.RESUMING in printed, "it was not disturbed"
        assert says in printed, printed


def kill_ranks(leader: int) -> None:
    for rank in faulty.ranks(leader):
        rank.kill()


def test_a_killed_rank_is_replaced(place, undisturbed):
    with disturbing(place, "rank", says="rank 0 died: its process was killed") as leader:
        kill_ranks(leader)
    assert place.curve("rank") == undisturbed


@pytest.mark.slow
def test_a_run_told_to_stop_saves_where_it_is_and_passes_over_a_checkpoint_that_is_damaged_later(
    place, undisturbed
):
    with place.training("stopped") as (process, log):
        place.wait_for_checkpoint("stopped", process, log)
        process.send_signal(signal.SIGTERM)
        assert "was asked to stop" in faulty.end_of(process, log, code=143)
    before, newest = place.checkpoints("stopped")[-2:]
    assert newest < faulty.STEPS, "it was not stopped"
    faulty.flip_a_bit(Path(place.runs, "stopped", f"step_{newest:08d}", "weights.safetensors"))

    printed = place.train_to_the_end("stopped", "--resume")
    assert f"step_{newest:08d}: weights.safetensors differs from its digest" in printed
    assert f"{faulty.RESUMING} {before}\n" in printed
    assert place.curve("stopped") == undisturbed


def test_a_killed_driver_is_resumed(place, undisturbed):
    kill_driver(place, "driver")
    assert faulty.RESUMING in place.train_to_the_end("driver", "--resume")
    assert place.curve("driver") == undisturbed


@pytest.mark.slow
def test_a_killed_driver_is_resumed_with_another_number_of_ranks(place, undisturbed_exactly):
    kill_driver(place, "other", faulty.EXACTLY)
    assert faulty.RESUMING in place.train_to_the_end("other", "--resume", faulty.EXACTLY, "workers=2")
    faulty.check_nearly_same(place.curve("other"), undisturbed_exactly)


def kill_driver(place: faulty.Place, name: str, *more: str) -> None:
    """Start a run, and kill its driver with all that belongs to it."""
    with place.training(name, *more) as (process, log):
        place.wait_for_checkpoint(name, process, log)
        kill_session(process.pid)


@pytest.mark.slow
def test_a_lost_machine_is_replaced(place, undisturbed):
    with disturbing(place, "raylet", says="rank 0 ") as leader:
        faulty.kill_machine(faulty.raylets_with_ranks(leader)[0])
    assert place.curve("raylet") == undisturbed


@pytest.mark.slow
def test_a_run_shrinks_with_its_cluster(place, undisturbed_exactly):
    with place.training("elastic", faulty.EXACTLY, "workers=[1, 4]", nodes=4) as (process, log):
        place.wait_for_checkpoint("elastic", process, log, faulty.CHECKPOINT_EVERY)
        first = set(faulty.ranks(process.pid))
        assert len(first) == 4
        faulty.kill_machine(faulty.raylets_with_ranks(process.pid)[0])

        # As many ranks as there are cores free at that moment; Ray looks for more once a minute. Those of
        # before may take a while to end, and losing a machine where there are only such disturbs nothing.
        def replaced() -> bool:
            now = faulty.ranks(process.pid)
            return faulty.RESUMING in log.read_text() and 0 < len(now) < 4 and first.isdisjoint(now)

        faulty.wait_until(replaced, process, log)
        faulty.kill_machine(faulty.raylets_with_ranks(process.pid)[0])
        assert faulty.end_of(process, log).count(faulty.RESUMING) == 2, "it was not disturbed twice"
    faulty.check_nearly_same(place.curve("elastic"), undisturbed_exactly)


@pytest.mark.slow
def test_a_run_grows_with_its_cluster(place, undisturbed_exactly):
    with place.training("growing", faulty.EXACTLY, "workers=[1, 4]", nodes=1) as (process, log):
        place.wait_for_checkpoint("growing", process, log, faulty.CHECKPOINT_EVERY)
        (alone,) = faulty.ranks(process.pid)
        # So that it is not at its end before Ray looks for more cores, a minute after its start.
        alone.suspend()
        process.send_signal(signal.SIGUSR1)
        faulty.wait_until(lambda: faulty.RESUMING in log.read_text(), process, log)
        assert len(faulty.ranks(process.pid)) == 2
        faulty.end_of(process, log)
    faulty.check_nearly_same(place.curve("growing"), undisturbed_exactly)


@pytest.mark.slow
def test_a_hung_rank_is_taken_for_dead(place, undisturbed_by_two):
    with disturbing(place, "hung", "workers=2", "hang_minutes=0.5", says="rank ") as leader:
        faulty.ranks(leader)[0].suspend()
    assert place.curve("hung") == undisturbed_by_two


@pytest.mark.slow
def test_a_rank_that_stands_still_alone_is_taken_for_dead(place, undisturbed):
    """It cannot end itself, and no other rank waits for it."""
    with disturbing(place, "alone", "hang_minutes=0.5", says="rank 0 did not answer") as leader:
        faulty.ranks(leader)[0].suspend()
    assert place.curve("alone") == undisturbed


@pytest.mark.slow
def test_a_killed_loading_process_is_replaced(place, undisturbed):
    with disturbing(place, "loader", "loader_workers=1", says="rank 0 lost a loading process") as leader:
        (rank,) = faulty.ranks(leader)
        for loader in rank.children(recursive=True):
            loader.kill()
    assert place.curve("loader") == undisturbed


@pytest.mark.slow
def test_a_rank_whose_data_do_not_come_is_taken_for_dead(place, undisturbed):
    with disturbing(place, "starved", "loader_workers=1", "hang_minutes=0.5", says="rank 0 ") as leader:
        (rank,) = faulty.ranks(leader)
        for loader in rank.children(recursive=True):
            loader.suspend()
    assert place.curve("starved") == undisturbed


@pytest.mark.slow
def test_a_machine_that_will_be_taken_is_saved_from_in_time(place):
    """The notice, as a cloud's node gives it to Ray, and then SIGTERM for all that runs there."""
    noticing = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"}
    # Longer than the other runs: a notice is looked for every five seconds.
    longer = ("steps=400", "checkpoint_every=400", "validate_every=400", "log_every=5")
    place.train_to_the_end("unnoticed", *longer)
    with place.training("noticed", *longer, environment=noticing) as (process, log):
        faulty.wait_until(lambda: "step 5/400" in log.read_text(), process, log)
        (machine,) = faulty.raylets_with_ranks(process.pid)
        announce(machine, seconds=60)
        notice = "the node of rank 0 is about to be preempted: saving a checkpoint"
        faulty.wait_until(lambda: notice in log.read_text(), process, log)
        place.wait_for_checkpoint("noticed", process, log, step=1)
        machine.terminate()
        printed = faulty.end_of(process, log)
    resumed = [int(step) for step in re.findall(rf"{faulty.RESUMING} (\d+)", printed)]
    # More than once if new ranks began on the machine while it ended.
    assert len(set(resumed)) == 1
    assert resumed[0] < 400, "it went on from the extra checkpoint"
    assert place.curve("noticed") == place.curve("unnoticed")


def announce(raylet: psutil.Process, seconds: int) -> None:
    """Tell Ray that a node will be taken."""
    flags = dict(word.lstrip("-").split("=", 1) for word in raylet.cmdline() if "=" in word)
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "drain-node", "--address", flags["gcs-address"], "--node-id", flags["node_id"]]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot instance"]
    subprocess.run([*command, "--deadline-remaining-seconds", str(seconds)], check=True, timeout=120)


@pytest.mark.slow
def test_sharded_training_has_the_curve_of_copies_and_goes_on_bit_for_bit(place):
    two = ("workers=2", "optimizer.objective=average")
    for name, parallel in (("copies", "ddp"), ("sharded", "fsdp")):
        place.train_to_the_end(name, *two, f"parallel={parallel}")
    faulty.check_nearly_same(place.curve("sharded"), place.curve("copies"))
    with disturbing(place, "killed_shards", *two, "parallel=fsdp", says="its process was killed") as leader:
        kill_ranks(leader)
    assert place.curve("killed_shards") == place.curve("sharded")
