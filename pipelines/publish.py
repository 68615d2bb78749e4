"""`dpt publish`: the model of a finished run → MLflow's registry, under an alias."""

from __future__ import annotations

from dataclasses import dataclass

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from pipelines.tracking import registry
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN, RELATIVE, MetricKey
from pipelines.tracking.model_kind import ModelKind
from pipelines.tracking.model_reference import MODEL_SCHEME
from pipelines.tracking.runs import TrackingError
from pipelines.tracking.source_commit import UNKNOWN, short


@dataclass(frozen=True, slots=True)
class Published:
    """A new version of a registered model.

    Attributes:
        name, version: of the registered model, and the number of its version.
        kind: what it predicts.
        commit: that it was trained with, short.
        moved: the alias that points to it, if any, and from where that moved.
    """

    name: str
    version: int
    kind: ModelKind
    commit: str
    moved: registry.Move | None

    @property
    def uri(self) -> str:
        """`models:/dpt@champion`, or `models:/dpt/1` without an alias."""
        tail = f"@{self.moved.alias}" if self.moved else f"/{self.version}"
        return f"{MODEL_SCHEME}{self.name}{tail}"


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The trial of a sweep with the best `value` of a `metric`: `name` and `run_id` of its run."""

    run_id: str
    name: str
    metric: str
    value: float


def best_trial(sweep: str, metric: str = str(MetricKey(RELATIVE, "abs_rel", MEAN))) -> BestTrial:
    """The finished trial of a `sweep` (its name, or id of its run) with the lowest value of a `metric`.

    Raises:
        TrackingError: if there is no such sweep, or it has no finished trial.
    """
    parent = tracking.find_run(sweep)
    query = f"tags.`{tracking.PARENT}` = '{parent}' AND attributes.status = 'FINISHED'"
    for trial in tracking.search_runs(query, order=f"metrics.`{metric}` ASC"):
        if metric in trial.data.metrics and trial.outputs and trial.outputs.model_outputs:
            return BestTrial(trial.info.run_id, trial.info.run_name, metric, trial.data.metrics[metric])
    raise TrackingError(f"{sweep} is not a sweep with a finished trial that has {metric}")


def publish(run: str, name: str, alias: str | None, force: bool = False) -> Published:
    """Register the model of a `run` (its name or id) as a new version of `name`, and move `alias` to it.

    Metrics are not compared; to move an alias only to a model that is not worse, publish under another one
    and promote it (`pipelines.tracking.registry.promote`). The alias keeps its kind, unless `force`.

    Raises:
        TrackingError: before anything is registered: if there is no such run, it logged no model, MLflow does
            not take the name or the alias, or that names a model of another kind.
    """
    run_id = tracking.find_run(run)
    model = logged_model(run_id)
    kind = ModelKind.of_tags(model.tags)
    if alias is not None:
        registry.check_alias(name, alias)
        if not force:
            registry.require_kind(name, alias, kind)
    commit = MlflowClient().get_run(run_id).data.tags.get("git_commit", UNKNOWN)
    version = _register(model, name, kind, commit)
    moved = registry.set_alias(name, alias, version) if alias is not None else None
    return Published(name, version, kind, short(commit), moved)


def logged_model(run_id: str) -> LoggedModel:
    """The model that the run `run_id` logged last. Raises TrackingError if there is none."""
    run = MlflowClient().get_run(run_id)
    logged = run.outputs.model_outputs if run.outputs else []
    if not logged:
        raise TrackingError(
            f"run {run.info.run_name} ({run_id}) has logged no model: it did not finish training"
        )
    return MlflowClient().get_logged_model(logged[-1].model_id)


def _register(model: LoggedModel, name: str, kind: ModelKind, commit: str) -> int:
    """Register a logged model, with tags and a description of its kind; returns its version."""
    source, tags = f"{MODEL_SCHEME}{model.model_id}", {**kind.tags, "git_commit": commit}
    try:
        version = mlflow.register_model(source, name, tags=tags).version
    except MlflowException as error:
        raise TrackingError(f"{name}: {str(error).splitlines()[0]}") from error
    MlflowClient().update_model_version(name, str(version), kind.description)
    return int(version)
