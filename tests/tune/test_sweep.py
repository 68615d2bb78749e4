"""A sweep from its tables to MLflow: each trial once, however often it is started."""

import math
import os
import signal
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from datasets_prep.manifest import open_datasets
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import Owned, owning
from pipelines.config import TuneConfig
from pipelines.config_files import with_changes
from pipelines.publish import best_trial, publish
from tests.tune.conftest import READOUT
from tune import records
from tune.ablations import AblationTable, Row
from tune.plan import SweepPlan, plan_sweep
from tune.records import child_runs, find_sweep
from tune.report.terminal import print_tables
from tune.runs import SweepExists
from tune.sweep import SweepFailed, SweepStopped, read_plan, run_sweep

pytestmark = pytest.mark.long

DATASETS = ("redweb", "tartanair")


@pytest.fixture
def plan(shards_folder, tables, train_config, tune_config) -> SweepPlan:
    return plan_sweep("first", tables, open_datasets([str(shards_folder)]), train_config, tune_config)


def runs_of(sweep: str) -> dict[str, Run]:
    parent = find_sweep(sweep)
    assert parent is not None
    runs = child_runs(parent.info.run_id)
    found = {run.data.tags[records.VARIANT]: run for run in runs}
    assert len(found) == len(runs), "a run is double"
    return found


def points(run: Run, metric: str) -> list[int]:
    return sorted(point.step for point in MlflowClient().get_metric_history(run.info.run_id, metric))


@pytest.mark.heavy
def test_a_sweep_that_is_running_is_refused(tmp_path, plan):
    refused = pytest.raises(Owned, match="sweep first is in use by process")
    with owning(Folder(tmp_path / "first"), "sweep first", print), refused:
        run_sweep(plan, str(tmp_path))


def test_a_sweep_is_run_once_and_leaves_what_its_tables_need(place, plan):
    said: list[str] = []
    run_sweep(plan, "runs", show=said.append)
    assert "sweep first: 2 trials, 0 of them finished" in said
    assert any("dpt_tiny.readout-ignore/s0: step 4/4" in line for line in said)

    parent = find_sweep("first")
    assert parent is not None
    assert (parent.info.status, parent.data.tags["job"]) == ("FINISHED", "tune")
    assert parent.data.tags["git_commit"]
    path = MlflowClient().download_artifacts(parent.info.run_id, records.SWEEP_FILE)
    assert SweepPlan.from_yaml(Path(path).read_text(), "artifact") == plan

    runs = runs_of("first")
    assert set(runs) == {"dpt_tiny.readout-ignore", "dpt_tiny", "dpt_tiny.readout-add"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    ignore, project, add = (runs[f"dpt_tiny{end}"] for end in (".readout-ignore", "", ".readout-add"))
    assert ignore.info.run_name == "first/dpt_tiny.readout-ignore/s0"
    tags = {key: value for key, value in ignore.data.tags.items() if records.table_of_tag(key)}
    assert tags == {"ablation.readout": "Ignore", "ablation.resolution": "Tiny"}
    assert (ignore.data.tags["job"], ignore.data.tags["seed"]) == ("train", "0")
    assert ignore.data.params[READOUT] == "ignore"

    for run in (ignore, project):
        for name in (*DATASETS, records.MEAN):
            assert math.isfinite(run.data.metrics[records.abs_rel(name)])
        assert points(run, "loss") == [2, 4]
        assert 0 < run.data.metrics[records.TRAIN_HOURS] < 1
        pictures = {item.path for item in MlflowClient().list_artifacts(run.info.run_id, records.PICTURES)}
        kinds = ("image", "truth", "prediction")
        assert pictures == {records.picture_path(name, 0, what) for name in DATASETS for what in kinds}
    for name in (*DATASETS, records.MEAN):
        at_training = ignore.data.metrics[records.abs_rel_at(64, name)]
        assert at_training == ignore.data.metrics[records.abs_rel(name)]
        assert ignore.data.metrics[records.abs_rel_at(96, name)] != at_training
    assert not any(key.startswith("resolution_") for key in project.data.metrics)

    for run in (project, add):
        assert run.data.metrics[records.LATENCY] > 0
        assert run.data.tags[records.LATENCY_DEVICE]
    assert project.data.metrics[records.PARAMETERS] > ignore.data.metrics[records.PARAMETERS]
    assert "loss" not in add.data.metrics

    before = time.perf_counter()
    again: list[str] = []
    run_sweep(read_plan("first", "runs"), "runs", show=again.append)
    assert again == ["sweep first: 2 trials, 2 of them finished"]
    assert time.perf_counter() - before < 60
    now = runs_of("first")
    assert {key: now[key].info.run_id for key in now} == {key: runs[key].info.run_id for key in runs}
    assert points(runs_of("first")["dpt_tiny"], records.PARAMETERS) == [4]

    check_tables()
    check_best(project, ignore)


def check_tables() -> None:
    console = Console(width=200, record=True, file=StringIO())
    print_tables("first", console)
    text = console.export_text()
    for expected in ("Table 7", "Figure 4", "Table 9", "Ignore", "Project", "96 px"):
        assert expected in text


def check_best(*runs: Run) -> None:
    best = min(runs, key=lambda run: run.data.metrics["relative/abs_rel/mean"])
    found = best_trial("first")
    assert (found.run_id, found.value) == (best.info.run_id, best.data.metrics["relative/abs_rel/mean"])
    published = publish(found.run_id, "dpt", "champion")
    assert MlflowClient().get_model_version("dpt", str(published.version)).run_id == best.info.run_id


def test_a_failed_trial_does_not_end_the_others_and_is_reported(
    place, shards_folder, train_config, tune_config
):
    rows = (Row("hopeless", {"max_loss": 1e-9, "max_skipped": 2}), Row("fine", {}))
    datasets = open_datasets([str(shards_folder)])
    plan = plan_sweep("mixed", [AblationTable("mine", "", "", rows)], datasets, train_config, tune_config)
    with pytest.raises(SweepFailed, match=r"1 of 2 trials are not finished: .*2 steps in a row were skipped"):
        run_sweep(plan, "runs", show=lambda line: None)
    statuses = {run.data.tags["ablation.mine"]: run.info.status for run in runs_of("mixed").values()}
    assert statuses == {"hopeless": "FAILED", "fine": "FINISHED"}
    parent = find_sweep("mixed")
    assert parent is not None
    assert parent.info.status == "FAILED"

    other = plan_sweep("mixed", plan.tables, datasets, with_changes(train_config, {"steps": 6}), tune_config)
    with pytest.raises(SweepExists, match="there is another sweep mixed"):
        run_sweep(other, "runs")
    with pytest.raises(SweepExists, match=r"MLflow at .* has another sweep mixed"):
        run_sweep(other, "elsewhere")


def test_a_stopped_sweep_saves_checkpoints_and_can_be_resumed(place, shards_folder, tables, train_config):
    endless = {"steps": 100_000, "checkpoint_every": 100_000, "validate_every": 100_000}
    train = with_changes(train_config, endless)
    plan = plan_sweep("brief", tables[:1], open_datasets([str(shards_folder)]), train, TuneConfig(pictures=0))
    sent: list[int] = []

    def stop_once_it_trains(line: str) -> None:
        if "step 2/" in line and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SweepStopped, match="brief is stopped with 2 trials to go; `dpt tune --resume brief`"):
        run_sweep(plan, "runs", show=stop_once_it_trains)
    # The one that waits may have come to its turn; it ends at its first steps then.
    saved = sorted(Path("runs/brief").glob("*/s0/step_*/state.json"))
    assert len({path.parts[2] for path in saved}) == len(saved) in (1, 2), "each that trained has saved once"
    assert {run.info.status for run in runs_of("brief").values()} == {"KILLED"}

    with pytest.raises(SweepStopped):
        run_sweep(replace(plan, tune=TuneConfig(pictures=0, hours=1e-9)), "runs", show=lambda line: None)
    assert sorted(Path("runs/brief").glob("*/s0/step_*/state.json")) == saved, "the time was up at once"
