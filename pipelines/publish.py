"""`dpt publish`: the model of a finished run → MLflow's registry, under an alias that others look up."""

from __future__ import annotations

from dataclasses import dataclass

import mlflow
from mlflow import MlflowClient

from pipelines.tracking import registry as models
from pipelines.tracking import runs as tracking
from pipelines.tracking.runs import TrackingError


@dataclass(frozen=True, slots=True)
class Published:
    """A registered model version and its address."""

    name: str
    version: int
    alias: str | None

    @property
    def uri(self) -> str:
        """`models:/dpt@champion`, or by version where there is no alias."""
        tail = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"{tracking.MODEL_SCHEME}{self.name}{tail}"


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The trial of a sweep that a metric prefers, and the metric's value."""

    run_id: str
    name: str
    metric: str
    value: float


def best_trial(sweep: str, metric: str = "abs_rel/mean") -> BestTrial:
    """The trial with the lowest value of a metric, of those of a sweep that were trained to the end.

    Args:
        sweep: name of the sweep, or id of its run.

    Raises:
        TrackingError: if there is no such sweep, or none of its trials is finished.
    """
    parent = tracking.find_run(sweep)
    query = f"tags.`mlflow.parentRunId` = '{parent}' AND attributes.status = 'FINISHED'"
    for trial in tracking.search_runs(query, order=f"metrics.`{metric}` ASC"):
        if metric in trial.data.metrics and trial.outputs and trial.outputs.model_outputs:
            return BestTrial(trial.info.run_id, trial.info.run_name, metric, trial.data.metrics[metric])
    raise TrackingError(f"{sweep} is no sweep with a finished trial that has {metric}")


def publish(run: str, name: str, alias: str | None) -> Published:
    """Register the model of a run (its name or id) as a new version of `name`.

    The alias moves to it whatever either measured; to move it only to what is not worse, publish under
    another alias and promote that (`pipelines.tracking.registry.promote`).

    Raises:
        TrackingError: if there is no such run, or it logged no model.
    """
    version = _register(tracking.find_run(run), name)
    if alias is not None:
        models.set_alias(name, alias, version)
    return Published(name, version, alias)


def _register(run_id: str, name: str) -> int:
    """Make the model that a run logged a new version of a registered model; returns its number."""
    run = MlflowClient().get_run(run_id)
    logged = run.outputs.model_outputs if run.outputs else []
    if not logged:
        raise TrackingError(
            f"run {run.info.run_name} ({run_id}) has logged no model: it did not finish training"
        )
    return int(mlflow.register_model(f"{tracking.MODEL_SCHEME}{logged[-1].model_id}", name).version)
