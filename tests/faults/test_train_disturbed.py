"""`dpt train`, disturbed in every way we know, must end with the loss curve of an undisturbed run.

Nothing is simulated: the command runs as a user runs it, in a process of its own with a Ray of its own, and
signals hit real processes. The curve is read back from MLflow, where no point may be missing or double.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.sessions import ON_A_CLUSTER, kill_session, name_of, running, session_processes

STEPS, CHECKPOINT_EVERY = 60, 10
SETTINGS = (
    "model.name=dpt_tiny", "model.pretrained=false", "batch_size=4", "crop=64", "precision=float32",
    "loader_workers=0", f"steps={STEPS}", "log_every=1", f"validate_every={STEPS}",
    f"checkpoint_every={CHECKPOINT_EVERY}", "optimizer.backbone_lr=1e-4", "optimizer.decoder_lr=1e-4",
    "optimizer.ema=0.9", "max_failures=8",
)  # fmt: skip
PATIENCE = 400.0

Curve = list[tuple[int, float]]


class Place:
    """Where the runs of this file live: shards, MLflow, checkpoints."""

    def __init__(self, folder: Path, shards: Path, template: Path) -> None:
        self.runs, self.shards = folder / "runs", shards
        shutil.copy(template, folder / "mlflow.db")
        self.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"

    def curve(self, name: str) -> Curve:
        """The run's losses as MLflow has them, with whatever is double."""
        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name("dpt")
        (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
        history = client.get_metric_history(run.info.run_id, "loss")
        return sorted((point.step, point.value) for point in history)

    def checkpoints(self, name: str) -> list[int]:
        """Steps of the whole checkpoints."""
        states = (self.runs / name).glob("step_*/state.json")
        return sorted(int(path.parent.name.removeprefix("step_")) for path in states)

    def training(self, name: str, *more: str) -> AbstractContextManager[tuple[subprocess.Popen[bytes], Path]]:
        """A run in a session of its own."""
        return running([sys.executable, "-m", "pipelines.cli", *self.arguments(name, *more)])

    def arguments(self, name: str, *more: str) -> list[str]:
        """Of the command line."""
        where = ("--data", str(self.shards), "--storage", str(self.runs))
        return ["train", "--name", name, *where, *SETTINGS, *more]

    def train_to_the_end(self, name: str, *more: str) -> str:
        """Run until it ends by itself; returns what it printed."""
        with self.training(name, *more) as (process, log):
            assert process.wait(PATIENCE) == 0, log.read_text()
            return log.read_text()

    def wait_for_checkpoint(self, name: str, step: int, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until the run has saved a checkpoint at that step or later."""
        wait_until(
            lambda: bool([s for s in self.checkpoints(name) if s >= step]) or process.poll() is not None, log
        )
        assert process.poll() is None, f"ended too soon to be disturbed: {log.read_text()}"


def wait_until(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def ranks(pid: int) -> list[psutil.Process]:
    """The training processes below a driver."""
    return [process for process in session_processes(pid) if "RayTrainWorker" in name_of(process)]


def training_below(raylet: psutil.Process) -> list[psutil.Process]:
    """The training processes of a node."""
    return [process for process in raylet.children() if "RayTrainWorker" in name_of(process)]


def check_nearly_same(curve: Curve, expected: Curve) -> None:
    """The same steps with the same losses, up to what another number of workers rounds otherwise."""
    assert [step for step, _ in curve] == [step for step, _ in expected]
    for (step, loss), (_, known) in zip(curve, expected, strict=True):
        assert loss == pytest.approx(known, abs=1e-4), step


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, shards_folder: Path, mlflow_template: Path
) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("disturbed"), shards_folder, mlflow_template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", place.tracking_uri)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield place


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> Curve:
    place.train_to_the_end("undisturbed")
    curve = place.curve("undisturbed")
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    assert len({loss for _, loss in curve}) > STEPS // 2
    return curve


def test_a_killed_rank_is_replaced(place: Place, undisturbed: Curve) -> None:
    with place.training("rank") as (process, log):
        place.wait_for_checkpoint("rank", 20, process, log)
        for rank in ranks(process.pid):
            rank.kill()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert "going on from step" in log.read_text(), "it was not disturbed"
    assert place.curve("rank") == undisturbed


@pytest.mark.slow
def test_a_run_told_to_stop_saves_where_it_is_and_passes_over_a_checkpoint_that_is_damaged_later(
    place: Place, undisturbed: Curve
) -> None:
    with place.training("stopped") as (process, log):
        place.wait_for_checkpoint("stopped", 20, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 1, log.read_text()
        assert "was told to stop and has saved where it is" in log.read_text()
    newest = place.checkpoints("stopped")[-1]
    assert newest < STEPS, "it was not stopped"
    weights = place.runs / "stopped" / f"step_{newest:08d}" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)

    printed = place.train_to_the_end("stopped", "--resume")
    assert f"step_{newest:08d}: weights.safetensors differs from its digest" in printed
    assert (
        f"going on from step {place.checkpoints('stopped')[0]}" in printed or "going on from step" in printed
    )
    assert place.curve("stopped") == undisturbed


@pytest.mark.slow
def test_a_killed_driver_is_resumed_with_another_number_of_workers(place: Place, undisturbed: Curve) -> None:
    with place.training("driver") as (process, log):
        place.wait_for_checkpoint("driver", 20, process, log)
        kill_session(process.pid)
    place.train_to_the_end("driver", "--resume", "workers=2")
    check_nearly_same(place.curve("driver"), undisturbed)


@pytest.mark.slow
def test_a_run_that_loses_a_machine_goes_on_with_fewer_workers(place: Place, undisturbed: Curve) -> None:
    command = [sys.executable, "-c", ON_A_CLUSTER, *place.arguments("elastic", "workers=[1, 2]")]
    with running(command) as (process, log):
        place.wait_for_checkpoint("elastic", 20, process, log)
        raylets = [p for p in session_processes(process.pid) if name_of(p) == "raylet"]
        victim = max(raylets, key=lambda raylet: len(training_below(raylet)))
        assert training_below(victim), "no raylet has a rank"
        victim.kill()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert "going on from step" in log.read_text(), "it was not disturbed"
    check_nearly_same(place.curve("elastic"), undisturbed)


@pytest.mark.slow
def test_a_hung_rank_is_taken_for_dead(place: Place) -> None:
    place.train_to_the_end("two", "workers=2")
    with place.training("hung", "workers=2", "hang_minutes=0.2") as (process, log):
        place.wait_for_checkpoint("hung", 20, process, log)
        ranks(process.pid)[0].suspend()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert "going on from step" in log.read_text(), "it was not disturbed"
    assert place.curve("hung") == place.curve("two")


@pytest.mark.slow
def test_sharded_training_has_the_same_curve(place: Place, undisturbed: Curve) -> None:
    place.train_to_the_end("copies", "workers=2", "optimizer.objective=average")
    with place.training("sharded", "workers=2", "parallel=fsdp", "optimizer.objective=average") as (
        process,
        log,
    ):
        place.wait_for_checkpoint("sharded", 20, process, log)
        for rank in ranks(process.pid):
            rank.kill()
        assert process.wait(PATIENCE) == 0, log.read_text()
    for (_, loss), (_, expected) in zip(place.curve("sharded"), place.curve("copies"), strict=True):
        assert loss == pytest.approx(expected, abs=1e-3)
