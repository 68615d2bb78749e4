"""Which of a sweep's trials is its best."""

import pytest
from mlflow import MlflowClient

from pipelines.config import TrainConfig
from pipelines.publish import best_trial
from pipelines.tracking import runs as tracking


def test_a_run_without_finished_trials_has_no_best(mlflow_database):
    parent = tracking.start_run("sweep", "tune", TrainConfig(), [])
    with pytest.raises(tracking.TrackingError, match="sweep is not a sweep with a finished trial"):
        best_trial("sweep")
    tags = {"mlflow.parentRunId": parent.run_id}
    trial = tracking.start_run("sweep/a/s0", "train", TrainConfig(), [], tags)
    trial.log_metrics({"relative/abs_rel/mean": 0.1}, step=1)
    MlflowClient().set_terminated(trial.run_id, "FINISHED")
    with pytest.raises(tracking.TrackingError, match="with a finished trial that has relative/abs_rel/mean"):
        best_trial("sweep")
    with pytest.raises(tracking.TrackingError, match="no run 'nowhere'"):
        best_trial("nowhere")
