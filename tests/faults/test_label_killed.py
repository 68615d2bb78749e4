"""`dpt label`, killed and run again, or with a worker killed, must end with the bytes of one clean run."""

import signal
import sys
import time
from pathlib import Path

import pytest

from datasets_prep.manifest import LATEST_NAME
from tests.support.files import check_only_whole_files, contents, differing
from tests.support.killing import (
    files_begun,
    moments,
    plant_half_written_files,
    run_to_the_end,
    run_until_killed,
)
from tests.support.labelling import NAME, blurred, save, saved_model
from tests.support.sessions import name_of, running, session_processes
from tests.support.videos import encoded

pytestmark = [pytest.mark.fault, pytest.mark.ray]

SETTINGS = ("network_side=64", "side=48", "samples_per_shard=2", "duplicates=0", "frame_step=2", "device=cpu")
ROUNDS = 4  # Each kills twice; the first one runs in the quick suite.


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and photos, one of them twice, one of them none."""
    root = tmp_path_factory.mktemp("given")
    saved_model(root / "model")
    for number in range(20):
        save(root / f"photos/{number}.png", blurred(number // 19 * 3 + number % 19))
    save(root / "photos/again.png", blurred(5))
    encoded(root / "photos/clip.mp4", [blurred(100 + number, 64, 96) for number in range(6)])
    (root / "photos/bad.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def clean(given: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one undisturbed run of one worker writes."""
    out = tmp_path_factory.mktemp("clean")
    run_to_the_end(command(given, out, "workers=1"))
    return contents(out)


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=pytest.mark.slow if n else ()) for n in range(ROUNDS)]
)
def test_a_killed_run_ends_as_a_clean_one(number, given, clean, tmp_path):
    for moment in moments(number):
        run_until_killed(command(given, tmp_path, "workers=2"), tmp_path / NAME, moment)
        left = contents(tmp_path)
        check_only_whole_files(left, clean)
        if number == 0:
            assert not any(name.endswith(LATEST_NAME) for name in left), "killed too late to disturb anything"
    plant_half_written_files(tmp_path / NAME)
    run_to_the_end(command(given, tmp_path, "workers=2"))
    after = contents(tmp_path)
    assert sorted(after) == sorted(clean)
    assert differing(after, clean) == []


def test_ray_replaces_a_killed_worker(given, clean, tmp_path):
    with running(command(given, tmp_path, "workers=2")) as (process, log):
        deadline = time.monotonic() + 400
        while not any("train-" in path.name for path in files_begun(tmp_path)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.001)
        workers = [one for one in session_processes(process.pid) if "LabellingActor" in name_of(one)]
        workers[0].send_signal(signal.SIGKILL)
        assert process.wait(timeout=400) == 0, log.read_text()
        assert "a process of MapWorker(Map(LabellingActor)) died: Ray starts another" in log.read_text()
    after = contents(tmp_path)
    assert sorted(after) == sorted(clean)
    assert differing(after, clean) == []


def command(given: Path, out: Path, *settings: str) -> list[str]:
    chosen = [f"--set={setting}" for setting in (*SETTINGS, *settings)]
    arguments = ("label", str(given / "photos"), "--model", str(given / "model"), "--name", NAME)
    return [sys.executable, "-m", "tune.cli", *arguments, "--out", str(out), *chosen]
