"""A sweep's runs in MLflow: one parent, one child a trial, each found again rather than started twice."""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as Entity

from datasets_prep.errors import UserError
from datasets_prep.manifest import open_datasets
from pipelines.tracking import runs as tracking
from tune import records
from tune.plan import SweepPlan, Trial

_HOUR = 3600.0


class SweepExists(UserError):
    """A sweep of that name is another one, or one that is not there has to be gone on with."""


def open_parent(plan: SweepPlan) -> tracking.Run:
    """The sweep's run: started, or found if an earlier start got so far.

    Raises:
        SweepExists: if MLflow has another sweep of that name.
    """
    tracking.connect()
    datasets = open_datasets(list(plan.data))
    known = find_parent(plan.name)
    if known is None:
        tags = {records.SWEEP: plan.name, records.PLAN_DIGEST: plan.digest}
        run = tracking.start_run(plan.name, records.SWEEP_JOB, plan.tune, datasets, tags)
    elif known.data.tags.get(records.PLAN_DIGEST) != plan.digest:
        raise SweepExists(
            f"MLflow at {mlflow.get_tracking_uri()} has another sweep {plan.name}: choose another --name"
        )
    else:
        run = _address(known)
        run.reopen()
    MlflowClient().log_text(run.run_id, plan.to_yaml(), records.SWEEP_FILE)
    return run


def find_parent(sweep: str) -> Entity | None:
    """The run of a sweep; the newest, should there be several."""
    found = _search({records.JOB: records.SWEEP_JOB, records.SWEEP: sweep})
    return found[0] if found else None


def open_child(plan: SweepPlan, trial: Trial, parent: tracking.Run) -> tracking.Run:
    """A trial's run: started, or found if an earlier attempt got so far."""
    known = {record: run for run in children(parent.run_id) if (record := _trial_of(run))}
    datasets, config = open_datasets(list(plan.data)), plan.config(trial)
    found = known.get((trial.variant.key, str(trial.seed)))
    if found is None:
        tags = {
            records.PARENT: parent.run_id,
            records.SWEEP: plan.name,
            records.VARIANT: trial.variant.key,
            records.SEED: str(trial.seed),
            **{records.table_tag(table): title for table, title in trial.variant.rows.items()},
        }
        return tracking.start_run(plan.run_name(trial), records.TRAIN_JOB, config, datasets, tags)
    run = _address(found)
    if not (found.inputs and found.inputs.dataset_inputs):  # they are what a start logs last
        tracking.describe_run(run, records.TRAIN_JOB, config, datasets)
    return run


def children(parent_id: str) -> list[Entity]:
    """The runs of a sweep's trials."""
    return _search({records.PARENT: parent_id})


def training_hours(run: tracking.Run) -> float:
    """Time spent in a run's training steps, each counted once however often it was interrupted."""
    history = MlflowClient(run.tracking_uri).get_metric_history(run.run_id, "step_seconds")
    seconds, before = 0.0, 0
    for point in sorted(history, key=lambda point: point.step):
        seconds += point.value * (point.step - before)
        before = point.step
    return seconds / _HOUR


def mark_stopped_early(run: tracking.Run, step: int) -> None:
    """Note that the scheduler ended a trial at that step."""
    MlflowClient(run.tracking_uri).set_tag(run.run_id, records.STOPPED_EARLY, str(step))
    run.finish("FINISHED")


def _trial_of(run: Entity) -> tuple[str, str] | None:
    tags = run.data.tags
    return (
        (tags[records.VARIANT], tags[records.SEED]) if {records.VARIANT, records.SEED} <= set(tags) else None
    )


def _search(tags: dict[str, Any]) -> list[Entity]:
    """All runs with those tags, newest first."""
    experiment = MlflowClient().get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None, "connecting makes it"
    query = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found: list[Entity] = []
    token = None
    while True:
        page = MlflowClient().search_runs(
            [experiment.experiment_id], query, order_by=["attributes.start_time DESC"], page_token=token
        )
        found += page
        if not (token := page.token):
            return found


def _address(run: Entity) -> tracking.Run:
    return tracking.Run(mlflow.get_tracking_uri(), run.info.run_id)
