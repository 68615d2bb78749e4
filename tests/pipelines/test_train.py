"""What a run is started with, and what may change when it is resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ray.exceptions import OutOfMemoryError

from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import Owned, owning
from datasets_prep.storage.sealed import sealed, unsealed
from pipelines.config import TrainConfig
from pipelines.tracking import runs as tracking
from pipelines.train import RUN_FILE, RunExists, TrainingFailed, _record, _resumed_run, identity_of, train
from pipelines.training.checkpoint import Snapshot, TrainingState
from pipelines.training.checkpoint_store import CheckpointStore


class Runs:
    """Starts and resumes the run `mine` without training anything."""

    def __init__(self, folder: Path, datasets: list[PreparedDataset]) -> None:
        self.folder, self.datasets, self.lines = Folder(folder) / "mine", datasets, []

    def start(self, resume: bool = False, allow_changes: bool = False, **changes: Any) -> tracking.Run:
        config, show = TrainConfig(**changes), self.lines.append
        identity = identity_of(config, self.datasets)
        run = _resumed_run(self.folder, "mine", identity, resume, allow_changes, show)
        if run is None:
            run = tracking.start_run("mine", "train", config, self.datasets)
            _record(self.folder, identity, run)
        return run

    def status(self, run: tracking.Run) -> str:
        return str(MlflowClient(run.tracking_uri).get_run(run.run_id).info.status)


@pytest.fixture
def runs(tmp_path: Path, shards_folder: Path, mlflow_database: str) -> Runs:
    return Runs(tmp_path / "runs", open_datasets([str(shards_folder)]))


def test_a_run_resumes_its_mlflow_run(runs):
    run = runs.start()
    with pytest.raises(RunExists, match=r"run mine exists in .*: continue it with --resume"):
        runs.start()
    run.finish("FAILED")
    # Where and how fast it runs may change.
    again = runs.start(resume=True, workers=2, checkpoint_every=7, device="cpu")
    assert again == run
    assert (runs.status(run), runs.lines) == ("RUNNING", [])


def test_a_run_that_is_being_trained_is_refused_before_ray_starts(tmp_path, shards_folder, mlflow_database):
    config = TrainConfig(model={"name": "dpt_tiny", "pretrained": False}, crop=64)
    folder, said = Folder(tmp_path / "runs/mine"), []
    with owning(folder, "run mine", said.append):
        for resume in (False, True):
            with pytest.raises(Owned, match=r"run mine is in use by process \d+ on .* since"):
                train(config, [str(shards_folder)], "mine", str(tmp_path / "runs"), resume, show=said.append)
    assert said == []
    assert not folder.exists()


def test_the_record_of_a_run_holds_no_password(tmp_path, monkeypatch):
    uri = "postgresql://ranftl:vision@db/mlflow"
    run, folder = tracking.Run(uri, "4f"), Folder(tmp_path)
    _record(folder, {}, run)
    text = (tmp_path / RUN_FILE).read_text()
    assert json.loads(text)["run"] == {"tracking_uri": "postgresql://db/mlflow", "run_id": "4f"}
    assert "vision" not in text
    monkeypatch.setattr(tracking.Run, "reopen", lambda self: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert _resumed_run(folder, "mine", {}, True, False, print) == run
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert _resumed_run(folder, "mine", {}, True, False, print).tracking_uri == "postgresql://db/mlflow"


@pytest.mark.parametrize(("changes", "difference"), [
    ({"seed": 1}, "config.seed: 0 → 1"),
    ({"sampling": "stratified"}, "config.sampling: 'multinomial' → 'stratified'"),
    ({"optimizer": {"schedule": "poly"}}, "config.optimizer.schedule: 'constant' → 'poly'"),
    ({"stages": [{"steps": 5, "datasets": ["redweb"]}]},
     "config.stages: [] → [{'weights': {}, 'balance': 'datasets', 'steps': 5, 'datasets': ['redweb']}]"),
])  # fmt: skip
def test_another_config_or_plan_is_refused_with_the_difference(runs, changes, difference):
    run = runs.start()
    with pytest.raises(RunExists) as refused:
        runs.start(resume=True, **changes)
    assert str(refused.value) == (
        f"run mine was started differently: {difference} (--allow-changes continues anyway)"
    )
    assert runs.start(resume=True, allow_changes=True, **changes) == run
    assert runs.lines == [f"continuing with changes: {difference}"]
    assert MlflowClient().get_run(run.run_id).data.tags["changed"] == difference
    assert runs.start(resume=True, **changes) == run, "the change is what it is now"


def test_other_data_are_refused_with_the_difference(runs):
    runs.start()
    redweb, tartanair = runs.datasets
    known = unsealed(runs.folder.read_text(RUN_FILE), RUN_FILE)
    known["identity"]["manifests"]["redweb"] = "0123"
    runs.folder.write_text(RUN_FILE, sealed(known))
    with pytest.raises(RunExists, match=f"manifests.redweb: '0123' → '{redweb.manifest.digest}' "):
        runs.start(resume=True)
    runs.datasets = [tartanair]
    with pytest.raises(RunExists, match=r"manifests.redweb: '0123' → None "):
        runs.start(resume=True)


def test_another_way_of_drawing_samples_is_refused(runs, monkeypatch):
    runs.start()
    monkeypatch.setattr("pipelines.train.PLAN_VERSION", "next")
    with pytest.raises(RunExists, match=r"started differently: plan: \d → 'next' "):
        runs.start(resume=True)


def test_a_lost_record_is_in_the_checkpoints_too(runs):
    run = runs.start()
    known = unsealed(runs.folder.read_text(RUN_FILE), RUN_FILE)
    state = TrainingState(3, known["identity"], known["run"])
    store = CheckpointStore(runs.folder, 1, print)
    store.save(Snapshot(state, {}, {}))
    store.close(3)
    Path(runs.folder.path_of(RUN_FILE)).unlink()
    with pytest.raises(RunExists, match="run mine exists"):
        runs.start()
    with pytest.raises(RunExists, match=r"config\.seed: 0 → 1"):
        runs.start(resume=True, seed=1)
    assert runs.start(resume=True) == run


def test_a_damaged_record_is_read_from_a_checkpoint_or_refused(runs):
    run = runs.start()
    text = runs.folder.read_text(RUN_FILE)
    runs.folder.write_text(RUN_FILE, text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RunExists, match=r"run\.json is damaged: its content .* choose another --name"):
        runs.start(resume=True)
    known = unsealed(text, RUN_FILE)
    store = CheckpointStore(runs.folder, 1, print)
    store.save(Snapshot(TrainingState(3, known["identity"], known["run"]), {}, {}))
    store.close(3)
    assert runs.start(resume=True) == run


def test_resume_starts_a_missing_run(runs):
    assert runs.status(runs.start(resume=True)) == "RUNNING"


def test_a_run_resumes_while_its_server_is_away(runs):
    run = runs.start()
    known = unsealed(runs.folder.read_text(RUN_FILE), RUN_FILE)
    known["run"]["tracking_uri"] = "http://127.0.0.1:9"
    runs.folder.write_text(RUN_FILE, sealed(known))
    assert runs.start(resume=True).run_id == run.run_id
    assert "http://127.0.0.1:9 does not answer" in runs.lines[0]
    assert "its metrics are kept and sent later" in runs.lines[0]


def test_a_controller_that_is_killed_leaves_a_run_that_can_be_resumed(
    tmp_path, shards_folder, place, monkeypatch
):
    def fit(self: Any) -> None:
        raise OutOfMemoryError("3 worker(s) were killed due to the node running low on memory.\nMore")

    monkeypatch.setattr("pipelines.train.DataParallelTrainer.fit", fit)
    config = TrainConfig(model={"name": "dpt_tiny", "pretrained": False}, crop=64, batch_size=2, steps=2)
    with pytest.raises(TrainingFailed, match=r"Ray failed: 3 .* on memory\.; --resume continues it"):
        train(config, [str(shards_folder)], "mine", str(tmp_path / "runs"))
