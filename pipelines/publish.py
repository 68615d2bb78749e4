"""`dpt publish`: the model of a finished run → MLflow's registry, under an alias."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException

import dpt
from pipelines.report.model_page import write_summary
from pipelines.tracking import registry
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_keys import MEAN, RELATIVE, MetricKey
from pipelines.tracking.model_kind import ModelKind
from pipelines.tracking.model_reference import MODEL_SCHEME
from pipelines.tracking.runs import TrackingError
from pipelines.tracking.source_commit import UNKNOWN, short

_PAGES = "pages"
_FAMILY = "Dense prediction transformers (DPT): depth or classes of every pixel of a photo."


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
        TrackingError: if there is no such run, it logged no model, MLflow does not take the name, the alias
            or the version's page, or the alias names a model of another kind. Nothing stays registered.
    """
    run_id = tracking.find_run(run)
    model = logged_model(run_id)
    kind = ModelKind.of_tags(model.tags)
    if alias is not None:
        registry.check_alias(name, alias)
        if not force:
            registry.require_kind(name, alias, kind)
    commit = MlflowClient().get_run(run_id).data.tags.get("git_commit", UNKNOWN)
    config = tracking.fetch_config(model)
    version = _register(model, name, kind, commit)
    try:
        _describe(registry.find(name, version), config, run_id)
        moved = registry.set_alias(name, alias, version) if alias is not None else None
    except BaseException:  # a full disk, a signal
        with suppress(MlflowException):
            MlflowClient().delete_model_version(name, str(version))
        raise
    return Published(name, version, kind, short(commit), moved)


def logged_model(run_id: str) -> LoggedModel:
    """The model that the run `run_id` logged last. Raises TrackingError if there is none that is whole."""
    run = MlflowClient().get_run(run_id)
    logged = run.outputs.model_outputs if run.outputs else []
    models = [MlflowClient().get_logged_model(output.model_id) for output in logged]
    whole = [model for model in models if model.status == LoggedModelStatus.READY]
    if not whole:
        why = "only a part; `dpt train --resume` does it again" if models else "a finished training does"
        raise TrackingError(f"run {run.info.run_name} ({run_id}) has logged no model: {why}")
    return max(whole, key=lambda model: int(model.creation_timestamp))


def _register(model: LoggedModel, name: str, kind: ModelKind, commit: str) -> int:
    """Register a logged model, with tags of its kind; returns its version."""
    source, tags = f"{MODEL_SCHEME}{model.model_id}", {**kind.tags, "git_commit": commit}
    client = MlflowClient()
    try:  # as mlflow.register_model, which prints lines of its own
        if not client.search_registered_models(f"name = {tracking.quoted(name)}"):
            client.create_registered_model(name)
        version = client.create_model_version(name, source, tags=tags, model_id=model.model_id).version
    except MlflowException as error:
        raise TrackingError(f"{name}: {str(error).splitlines()[0]}") from error
    return int(version)


def _describe(version: registry.ModelVersion, config: dpt.ModelConfig | None, run_id: str) -> None:
    """What whoever finds a new version in MLflow must know: tags, a description, and a page of its run."""
    client, name, number = MlflowClient(), version.name, str(version.version)
    # MLflow stores an infinite value as the largest float.
    metrics = {key: value for key, value in version.metrics().items() if abs(value) < sys.float_info.max}
    tags = {f"data.{dataset}": digest for dataset, digest in version.data.items()}
    tags |= {key: f"{value:.6g}" for key, value in metrics.items() if key.endswith(f"/{MEAN}")}
    if metrics:
        tags["protocol"] = " ".join(sorted({key.partition("/")[0] for key in metrics}))
    if config is not None:
        tags["page"] = _page(version, config, run_id)
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    client.update_model_version(name, number, _description(version, metrics))
    versions = registry.list_models(name)
    for key in ("task", "unit"):
        kinds = sorted({one.kind.tags[key] for one in versions})
        client.set_registered_model_tag(name, key, ", ".join(kinds))
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, f"{_FAMILY} `dpt models {name}` compares the versions.")


def _description(version: registry.ModelVersion, metrics: Mapping[str, float]) -> str:
    """Markdown of a version and its `metrics`."""
    data = ", ".join(f"{name} ({digest[:8]})" for name, digest in sorted(version.data.items()))
    address = f"{MODEL_SCHEME}{version.name}/{version.version}"
    lines = [version.kind.description, ""]
    commit = short(version.git_commit)
    lines += [f"Trained on {data or 'unknown data'} at commit {commit}, run {version.run_name}.", ""]
    lines += [f"    dpt predict photo.jpg --model {address} --out predictions"]
    if metrics:
        lines += ["", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in sorted(metrics.items())]
    return "\n".join(lines)


def _page(version: registry.ModelVersion, config: dpt.ModelConfig, run_id: str) -> str:
    """Log the page of a version, with this `config` of its model, as an artifact of its run; its address."""
    folder = f"{_PAGES}/{version.name}-{version.version}"
    with tempfile.TemporaryDirectory(prefix="dpt-page-") as scratch:
        page = write_summary(config, f"{MODEL_SCHEME}{version.name}/{version.version}", Path(scratch))
        tracking.Run(mlflow.get_tracking_uri(), run_id).log_files(Path(scratch), folder)
    return f"runs:/{run_id}/{folder}/{page.name}"
