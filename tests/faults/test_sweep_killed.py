"""`dpt tune`, killed in every way we know, must end with each trial once and the figures of a clean sweep.

Nothing is simulated: the command runs as a user runs it, in a process of its own with a Ray of its own, and
signals hit real processes.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.support.faulty_training import PATIENCE, end_of, kill_machine, raylets_with_ranks, wait_until
from tests.support.sessions import ON_A_CLUSTER, kill_session, name_of, running, session_processes
from tests.support.tracked import curve

pytestmark = [pytest.mark.fault, pytest.mark.ray]

DPT = (sys.executable, "-m", "tune.cli")
STEPS = 30
SETTINGS = (
    "model.name=dpt_tiny", "model.pretrained=false", "batch_size=4", "crop=64", "precision=float64",
    "loader_workers=0", f"steps={STEPS}", "log_every=1", f"validate_every={STEPS}", "checkpoint_every=5",
    "optimizer.backbone_lr=1e-4", "optimizer.decoder_lr=1e-4",
)  # fmt: skip
ABLATION = "variants:\n  ignore: {model.overrides.readout: ignore}\n  project: {}\n"
KEYS = ("dpt_tiny.readout-ignore", "dpt_tiny")

Figures = dict[str, tuple[float, list[tuple[int, float]]]]


class Place:
    """Where the sweeps of this file live: shards, MLflow, checkpoints."""

    def __init__(self, folder: Path, shards: Path, template: Path) -> None:
        self.runs, self.shards, self.ablation = folder / "runs", shards, folder / "mine.yaml"
        self.ablation.write_text(ABLATION)
        shutil.copy(template, folder / "mlflow.db")
        self.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"

    def arguments(self, name: str) -> list[str]:
        """Of the command line that starts a sweep."""
        where = ("--data", str(self.shards), "--storage", str(self.runs), "--name", name)
        return ["tune", str(self.ablation), *where, *SETTINGS]

    def resume(self, name: str) -> str:
        """Go on with a sweep to its end, as a user does; returns what was printed."""
        with running([*DPT, "tune", "--resume", name, "--storage", str(self.runs)]) as (process, log):
            return end_of(process, log)

    def has(self, name: str, key: str, pattern: str) -> bool:
        """Whether a trial has a file of that name."""
        return bool(list((self.runs / name / key / "s0").glob(pattern)))

    def figures(self, name: str) -> Figures:
        """Row → final AbsRel and losses of the sweep's trials as MLflow has them, with whatever is double."""
        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name("dpt")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], f"tags.sweep = '{name}'")
        assert sorted(run.data.tags["job"] for run in runs) == ["train", "train", "tune"], "runs are double"
        assert {run.info.status for run in runs} == {"FINISHED"}
        found: Figures = {}
        for run in runs:
            if run.data.tags["job"] == "train":
                losses = curve(run, tracking_uri=self.tracking_uri)
                found[run.data.tags["ablation.mine"]] = (run.data.metrics["relative/abs_rel/mean"], losses)
        return found


def drives(process: psutil.Process) -> bool:
    """Whether Ray Tune runs a trial in a process."""
    return name_of(process).startswith("ray::ImplicitFunc")


@pytest.fixture(scope="module")
def place(tmp_path_factory, shards_folder, mlflow_template) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("sweeps"), shards_folder, mlflow_template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", place.tracking_uri)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield place


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> Figures:
    with running([*DPT, *place.arguments("undisturbed")]) as (process, log):
        end_of(process, log)
    figures = place.figures("undisturbed")
    assert [step for step, _ in figures["ignore"][1]] == list(range(1, STEPS + 1))
    return figures


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_with_only_what_is_missing(place, undisturbed):
    def finished(key: str) -> bool:
        return place.has("killed", key, "result.json")

    def begun(key: str) -> bool:
        return place.has("killed", key, "step_*/state.json") and not finished(key)

    with running([*DPT, *place.arguments("killed")]) as (process, log):
        # Which of two waiting trials trains first is Ray's choice.
        wait_until(lambda: any(map(finished, KEYS)) and any(map(begun, KEYS)), process, log)
        kill_session(process.pid)
    (whole,), (half,) = filter(finished, KEYS), filter(begun, KEYS)
    printed = place.resume("killed")
    assert "2 trials, 1 of them finished" in printed
    assert f"{half}/s0: resuming from step" in printed
    assert f"{whole}/s0" not in printed
    assert place.figures("killed") == undisturbed

    before = time.monotonic()
    printed = place.resume("killed")
    assert "2 trials, 2 of them finished" in printed
    assert time.monotonic() - before < PATIENCE / 2
    assert place.figures("killed") == undisturbed


@pytest.mark.slow
def test_a_killed_trial_is_started_again_from_its_checkpoint(place, undisturbed):
    with running([*DPT, *place.arguments("crash")]) as (process, log):
        wait_until(lambda: place.has("crash", KEYS[0], "step_*/state.json"), process, log)
        drivers = [each for each in session_processes(process.pid) if drives(each)]
        assert drivers, "no trial runs"
        for driver in drivers:
            driver.kill()
        assert f"{KEYS[0]}/s0: resuming from step" in end_of(process, log)
    assert place.figures("crash") == undisturbed


@pytest.mark.slow
def test_a_sweep_outlives_a_machine(place, undisturbed):
    command = [sys.executable, "-c", ON_A_CLUSTER, *place.arguments("machine")]
    with running(command, {"HEAD_CPUS": "0"}) as (process, log):
        wait_until(lambda: place.has("machine", KEYS[0], "step_*/state.json"), process, log)
        victims = [r for r in raylets_with_ranks(process.pid) if not any(map(drives, r.children()))]
        assert victims, "no machine trains that does not hold the trials' drivers"
        kill_machine(victims[0])
        end_of(process, log)
    for title, (score, losses) in place.figures("machine").items():
        expected, known = undisturbed[title]
        assert score == pytest.approx(expected, rel=1e-2)
        assert [step for step, _ in losses] == [step for step, _ in known]
