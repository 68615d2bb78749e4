"""Training runs for fault injection: the command as users run it, in its own session and cluster."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from datasets_prep.storage.folder import Folder
from tests.support import tracked
from tests.support.sessions import ON_A_CLUSTER, name_of, running, session_processes

STEPS, CHECKPOINT_EVERY = 40, 8
DISTURBED_AT = 16  # Faults are injected after this checkpoint.

SETTINGS = (
    "model.name=dpt_tiny", "model.pretrained=false", "batch_size=4", "crop=64", "precision=float32",
    "optimizer.gram=exact",
    "loader_workers=0", f"steps={STEPS}", "log_every=1", f"validate_every={STEPS}",
    f"checkpoint_every={CHECKPOINT_EVERY}", "optimizer.backbone_lr=1e-4", "optimizer.decoder_lr=1e-4",
    "optimizer.ema=0.9", "max_failures=8",
)  # fmt: skip
RESUMING = "resuming from step"
PATIENCE = 400.0
EXACTLY = "precision=float64"
"""For comparing different numbers of ranks: float32 rounding differences grow to 1e-3 in 20 steps."""

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Place:
    """Where runs live: their shards, MLflow database and checkpoints."""

    shards: Path
    database: Path  # MLflow's SQLite file
    storage: str  # the command's `--storage`
    runs: str  # the same folder as the test sees it
    before: Sequence[str] = ()  # prefix of the command
    environment: Mapping[str, str] = field(default_factory=dict)  # further variables of every run

    @staticmethod
    def new(folder: Path, shards: Path, template: Path) -> "Place":
        """An empty place in `folder`, with a copy of the MLflow database `template`."""
        shutil.copy(template, folder / "mlflow.db")
        return Place(shards, folder / "mlflow.db", str(folder / "runs"), str(folder / "runs"))

    def curve(self, name: str) -> Curve:
        """The run's losses in MLflow, duplicates included."""
        where = f"sqlite:///{self.database}"
        return tracked.curve(tracked.find_run(name, where), tracking_uri=where)

    def folder(self, name: str) -> Folder:
        """The run's folder."""
        return Folder(self.runs) / name

    def checkpoints(self, name: str) -> list[int]:
        """Steps of the complete checkpoints."""
        folder = self.folder(name)
        found = [child for child in folder.children() if child.startswith("step_")]
        return sorted(int(child[5:]) for child in found if folder.exists(f"{child}/state.json"))

    def training(
        self, name: str, *more: str, nodes: int = 2, environment: Mapping[str, str] | None = None
    ) -> AbstractContextManager[tuple[subprocess.Popen[bytes], Path]]:
        """A run in its own session, on a head without cores and so many `nodes` of one core.

        `more` are further arguments of the command, `environment` further variables.
        """
        where = ("--data", str(self.shards), "--storage", self.storage)
        arguments = ("train", "--name", name, *where, *SETTINGS, *more)
        cluster = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.database}", "WORKER_NODES": str(nodes)}
        more_environment = {"HEAD_CPUS": "0", **cluster, **self.environment, **(environment or {})}
        return running([*self.before, sys.executable, "-c", ON_A_CLUSTER, *arguments], more_environment)

    def train_to_the_end(self, name: str, *more: str, nodes: int = 2) -> str:
        """Run until it exits; returns its output."""
        with self.training(name, *more, nodes=nodes) as (process, log):
            return end_of(process, log)

    def wait_for_checkpoint(
        self, name: str, process: subprocess.Popen[bytes], log: Path, step: int = DISTURBED_AT
    ) -> None:
        """Wait until the run has saved a checkpoint at `step` or later; it must still be running."""
        wait_until(lambda: any(s >= step for s in self.checkpoints(name)), process, log)


def end_of(process: subprocess.Popen[bytes], log: Path, code: int = 0) -> str:
    """Wait until a command ends with the exit code `code`; returns its output."""
    try:
        found: int | None = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        found = None
    printed = log.read_text()
    assert found == code, f"{found}: {printed}"
    return printed


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a condition during a run; it must not end before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended before the fault: {log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    assert process.poll() is None, f"ended before the fault: {log.read_text()}"


def ranks(leader: int) -> list[psutil.Process]:
    """The training processes of a session."""
    return [process for process in session_processes(leader) if "RayTrainWorker" in name_of(process)]


def raylets_with_ranks(leader: int) -> list[psutil.Process]:
    """The raylets of the nodes with training processes."""
    raylets = [process for process in session_processes(leader) if name_of(process) == "raylet"]
    return [r for r in raylets if any("RayTrainWorker" in name_of(child) for child in r.children())]


def kill_machine(raylet: psutil.Process) -> None:
    """SIGKILL a raylet and its processes, as if its machine were lost."""
    for process in (raylet, *raylet.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def check_nearly_same(curve: Curve, expected: Curve) -> None:
    """The same steps with the same losses, up to rounding."""
    assert [step for step, _ in curve] == [step for step, _ in expected]
    for (step, loss), (_, known) in zip(curve, expected, strict=True):
        assert loss == pytest.approx(known, abs=1e-4), step


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
