"""ASHA ends trials that are worse than others were at their age, and what it ended is not begun again."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from datasets_prep.manifest import open_datasets
from pipelines.config import TrainConfig, TuneConfig
from pipelines.config_files import with_changes
from pipelines.tracking import runs as tracking
from tune import records
from tune.ablations import AblationTable, Row
from tune.plan import SweepPlan, plan_sweep
from tune.records import child_runs, find_sweep
from tune.runs import open_child, open_parent
from tune.scheduling import EarlyStopping, scheduler
from tune.sweep import run_sweep
from tune.trial import SweepPlace, is_finished

ROWS = (
    Row("learns", {"optimizer.decoder_lr": 1e-3, "optimizer.backbone_lr": 1e-3}),
    Row("does not", {"optimizer.decoder_lr": 1e-12, "optimizer.backbone_lr": 1e-12}),
)
RATES = AblationTable("rates", "", "", ROWS)


def plan_with(shards: Path, train: TrainConfig, early_stopping: str) -> SweepPlan:
    settings = TuneConfig(early_stopping=early_stopping, grace=10, reduction=2, pictures=0)
    return plan_sweep("early", [RATES], open_datasets([str(shards)]), train, settings)


def test_the_papers_tables_are_trained_to_the_end(shards_folder, train_config):
    assert TuneConfig().early_stopping == "none"
    assert type(scheduler(plan_with(shards_folder, train_config, "none"))) is FIFOScheduler
    assert isinstance(scheduler(plan_with(shards_folder, train_config, "asha")), ASHAScheduler)


def test_a_trial_that_was_ended_early_is_over(shards_folder, train_config, tmp_path, mlflow_database):
    plan = plan_with(shards_folder, train_config, "asha")
    place = SweepPlace(str(tmp_path / "runs" / "early"), open_parent(plan), 1, None)
    child = open_child(plan, plan.trials[1], place.parent)
    assert open_child(plan, plan.trials[1], place.parent) == child, "it is found again, not started twice"
    callback = EarlyStopping(plan, place)
    stopped = SimpleNamespace(config={"trial": 1}, last_result={"step": 2, "abs_rel": 0.5})
    by_itself = SimpleNamespace(config={"trial": 0}, last_result={"step": 2, "outcome": "stopped"})
    for trial in (stopped, by_itself):
        callback.on_trial_complete(1, [], trial)
    assert is_finished(place, plan.trials[1])
    assert not is_finished(place, plan.trials[0])
    tags = MlflowClient().get_run(child.run_id).data.tags
    assert tags[records.STOPPED_EARLY] == "2"


def test_a_start_that_was_cut_off_is_completed(shards_folder, train_config, mlflow_database, monkeypatch):
    plan = plan_with(shards_folder, train_config, "none")
    parent = open_parent(plan)
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "describe_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_child(plan, plan.trials[0], parent)
    (cut_off,) = child_runs(parent.run_id)
    assert not cut_off.data.params
    assert open_child(plan, plan.trials[0], parent).run_id == cut_off.info.run_id
    (whole,) = child_runs(parent.run_id)
    assert whole.data.params["steps"] == str(train_config.steps)
    assert {entry.dataset.name for entry in whole.inputs.dataset_inputs} == {"redweb", "tartanair"}


@pytest.mark.slow
def test_a_hopeless_trial_is_ended(place, shards_folder, train_config):
    train = with_changes(train_config, {"steps": 60, "validate_every": 10, "checkpoint_every": 10})
    plan = plan_with(shards_folder, train, "asha")
    run_sweep(plan, "runs", show=lambda line: None)
    parent = find_sweep("early")
    assert parent is not None
    runs = {run.data.tags["ablation.rates"]: run for run in child_runs(parent.info.run_id)}
    assert records.STOPPED_EARLY not in runs["learns"].data.tags
    assert int(runs["does not"].data.tags[records.STOPPED_EARLY]) < 60
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    said: list[str] = []
    run_sweep(plan, "runs", show=said.append)
    assert said == ["sweep early: 2 trials, 2 of them finished"]
