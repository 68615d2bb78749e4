"""`dpt publish`: the model of a finished run → MLflow's registry, under an alias."""

from __future__ import annotations

from dataclasses import dataclass

import mlflow
from mlflow import MlflowClient

from pipelines.tracking import registry
from pipelines.tracking import runs as tracking
from pipelines.tracking.runs import TrackingError

_MEANING = ("quantity", "unit", "predicts")
"""Tags of a logged model that its registered version has too, see `pipelines.tracking.runs.log_model`."""


@dataclass(frozen=True, slots=True)
class Published:
    """A `version` of the registered model `name`, and the `alias` that points to it, if any."""

    name: str
    version: int
    alias: str | None

    @property
    def uri(self) -> str:
        """`models:/dpt@champion`, or `models:/dpt/1` without an alias."""
        tail = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"{tracking.MODEL_SCHEME}{self.name}{tail}"


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The trial of a sweep with the best `value` of a `metric`: `name` and `run_id` of its run."""

    run_id: str
    name: str
    metric: str
    value: float


def best_trial(sweep: str, metric: str = "abs_rel/mean") -> BestTrial:
    """The finished trial of a `sweep` (its name, or id of its run) with the lowest value of a `metric`.

    Raises:
        TrackingError: if there is no such sweep, or it has no finished trial.
    """
    parent = tracking.find_run(sweep)
    query = f"tags.`mlflow.parentRunId` = '{parent}' AND attributes.status = 'FINISHED'"
    for trial in tracking.search_runs(query, order=f"metrics.`{metric}` ASC"):
        if metric in trial.data.metrics and trial.outputs and trial.outputs.model_outputs:
            return BestTrial(trial.info.run_id, trial.info.run_name, metric, trial.data.metrics[metric])
    raise TrackingError(f"{sweep} is not a sweep with a finished trial that has {metric}")


def publish(run: str, name: str, alias: str | None) -> Published:
    """Register the model of a `run` (its name or id) as a new version of `name`, and move `alias` to it.

    Metrics are not compared; to move an alias only to a model that is not worse, publish under another one
    and promote it (`pipelines.tracking.registry.promote`).

    Raises:
        TrackingError: if there is no such run, or it logged no model.
    """
    version = _register(tracking.find_run(run), name)
    if alias is not None:
        registry.set_alias(name, alias, version)
    return Published(name, version, alias)


def _register(run_id: str, name: str) -> int:
    """Register the model that a run logged, with its tags and as description what it predicts.

    Returns its version.
    """
    run = MlflowClient().get_run(run_id)
    logged = run.outputs.model_outputs if run.outputs else []
    if not logged:
        raise TrackingError(
            f"run {run.info.run_name} ({run_id}) has logged no model: it did not finish training"
        )
    model_id, client = logged[-1].model_id, MlflowClient()
    tags = {key: value for key, value in client.get_logged_model(model_id).tags.items() if key in _MEANING}
    version = mlflow.register_model(f"{tracking.MODEL_SCHEME}{model_id}", name, tags=tags).version
    if "predicts" in tags:
        client.update_model_version(name, version, f"Predicts {tags['predicts']}.")
    return int(version)
