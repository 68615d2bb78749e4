"""A sweep's runs in MLflow: one parent, one child a trial, each found again rather than started twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as Entity

from datasets_prep.errors import UserError
from datasets_prep.manifest import open_datasets
from pipelines.cluster.signals import closing
from pipelines.tracking import runs as tracking
from tune import records
from tune.plan import SweepPlan, Trial

_HOUR = 3600.0


class SweepExists(UserError):
    """There is another sweep of that name, or none to resume."""


def open_parent(plan: SweepPlan) -> tracking.Run:
    """The run of the sweep of a `plan`: started, or found if an earlier start had created it.

    Raises:
        SweepExists: if MLflow has another sweep of that name.
    """
    tracking.connect()
    datasets = open_datasets(list(plan.data))
    known = records.find_sweep(plan.name)
    if known is None:
        tags = {records.SWEEP: plan.name, records.PLAN_DIGEST: plan.digest}
        run = tracking.start_run(plan.name, records.SWEEP_JOB, plan.tune, datasets, tags)
    elif known.data.tags.get(records.PLAN_DIGEST) != plan.digest:
        raise SweepExists(
            f"MLflow at {tracking.store_name()} has another sweep {plan.name}: choose another --name"
        )
    else:
        run = _address(known)
        run.reopen()
    run.log_text(plan.to_yaml(), records.SWEEP_FILE)
    return run


def open_child(plan: SweepPlan, trial: Trial, parent: tracking.Run) -> tracking.Run:
    """The run of a `trial` of a `plan`, a child of `parent`: started, or that of an earlier attempt."""
    datasets, config = open_datasets(list(plan.data)), plan.config(trial)
    identity = {records.VARIANT: trial.variant.key, records.SEED: str(trial.seed)}
    # Of duplicates, which a server may have created when a request was repeated, the oldest.
    for run in reversed(records.child_runs(parent.run_id)):
        if identity.items() <= run.data.tags.items():
            # Inputs are what a start logs last: without them it was cut off.
            if not (run.inputs and run.inputs.dataset_inputs):
                tracking.describe_run(_address(run), records.TRAIN_JOB, config, datasets)
            return _address(run)
    rows = {records.table_tag(table): title for table, title in trial.variant.rows.items()}
    tags = {records.PARENT: parent.run_id, records.SWEEP: plan.name, **identity, **rows}
    return tracking.start_run(plan.run_name(trial), records.TRAIN_JOB, config, datasets, tags)


@contextmanager
def ending_children(parent: tracking.Run) -> Iterator[None]:
    """Where the block is ended, so are the runs below `parent`: after a signal trials have no time for it."""

    def end() -> None:
        for run in records.child_runs(parent.run_id):
            if run.info.status == "RUNNING":
                _address(run).finish("KILLED")

    try:
        with closing(end):
            yield
    except BaseException:
        end()
        raise


def training_hours(run: tracking.Run) -> float:
    """Time spent in the training steps of a `run`, each counted once however often it was interrupted.

    The metric `step_seconds` is the mean over the steps since its last point.
    """
    history = MlflowClient(run.tracking_uri).get_metric_history(run.run_id, "step_seconds")
    seconds, before = 0.0, 0
    for point in sorted(history, key=lambda point: point.step):
        seconds += point.value * (point.step - before)
        before = point.step
    return seconds / _HOUR


def mark_stopped_early(run: tracking.Run, step: int) -> None:
    """Tag the `run` of a trial that the scheduler stopped at a `step`."""
    MlflowClient(run.tracking_uri).set_tag(run.run_id, records.STOPPED_EARLY, str(step))
    run.finish("FINISHED")


def _address(run: Entity) -> tracking.Run:
    return tracking.Run(mlflow.get_tracking_uri(), run.info.run_id)
