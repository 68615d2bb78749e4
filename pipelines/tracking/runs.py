"""Runs in MLflow: metrics, dataset inputs, pictures, and the model that a run logs.

Runs are tracked by the server that MLFLOW_TRACKING_URI names, else in an SQLite file in the working
directory. A run is started by the driver and logged to by rank 0 of the training processes, which may be on
another machine; both hold a `Run`, which is only its address.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModel, Metric, Param, RunTag
from mlflow.entities import Run as RunEntity
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from datasets_prep.errors import UserError
from datasets_prep.formats.pictures import encode_png
from datasets_prep.manifest import PreparedDataset
from datasets_prep.storage.sealed import seal_of
from dpt.config import ModelConfig
from dpt.weights.folder import CONFIG, read_config
from pipelines.cluster.credentials import with_credentials, without_credentials
from pipelines.cluster.signals import closing
from pipelines.config import TaskName, parameters_of
from pipelines.config_files import to_yaml
from pipelines.tracking.database import alone_with, database_of, local_store, wait_for_busy_databases
from pipelines.tracking.model_kind import ModelKind
from pipelines.tracking.origin import origin_tags

EXPERIMENT = "dpt"
PARENT = "mlflow.parentRunId"
"""Tag of a run with the id of its parent."""
TRAIN, VALIDATION, EVALUATION = "train", "validation", "evaluation"
"""What a run reads a dataset for."""

_TRAINING = {"train", "tune"}
"""Commands that train on their datasets."""

_ANSWER_SECONDS = 10
_PARAMS_A_REQUEST = 100
_MODEL_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "opencv-python-headless")
_PACKAGES = (*_MODEL_PACKAGES, "ray", "mlflow")


class TrackingError(UserError):
    """No such run or model, or a tracking server that does not answer or refuses.

    Args:
        message: one line; user names and passwords in URIs are taken out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


class NoStore(TrackingError):
    """Nothing was ever tracked in the place that is asked."""


class MetricPoint(NamedTuple):
    """One value of the metric `name` at a `step`; `timestamp` in milliseconds since 1970."""

    name: str
    value: float
    timestamp: int
    step: int


@contextmanager
def _storing(artifact: str) -> Iterator[None]:
    """Raise TrackingError if a folder of this machine does not take an `artifact`, as on a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a server
            raise
        # Of a copy that fails the second is the new file.
        place = error.filename2 or error.filename or artifact
        raise TrackingError(f"MLflow cannot store {place}: {os.strerror(error.errno)}") from error


@dataclass(frozen=True, slots=True)
class Run:
    """The address of one MLflow run: `run_id` at `tracking_uri`, which may hold a password.

    Pickled, it is as in `record`: Ray Tune writes what it sends to trials into the sweep's folder.
    """

    tracking_uri: str
    run_id: str

    @classmethod
    def of_record(cls, record: Mapping[str, str]) -> Run:
        """Inverse of `record`, with the credentials of this process's MLFLOW_TRACKING_URI."""
        return cls(with_credentials(record["tracking_uri"]), record["run_id"])

    def record(self) -> dict[str, str]:
        """The address for files that others read: without user name and password."""
        return {"tracking_uri": without_credentials(self.tracking_uri), "run_id": self.run_id}

    def __reduce__(self) -> tuple[Any, ...]:
        return Run.of_record, (self.record(),)

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log `metrics`, name → value, at a step, in one request."""
        now = int(time.time() * 1000)
        self.log_points([MetricPoint(name, float(value), now, step) for name, value in metrics.items()])

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Log at most 1,000 `points`, of any steps, in one request."""
        if points:
            self._client.log_batch(self.run_id, metrics=[Metric(*point) for point in points])

    def logged_steps(self, name: str) -> set[int]:
        """The steps at which the metric `name` has a value already."""
        return {point.step for point in self._client.get_metric_history(self.run_id, name)}

    def log_config(self, config: BaseModel, name: str, task: TaskName | None = None) -> None:
        """Log a resolved config: as parameters, for comparison of runs, and as the artifact `<name>.yaml`.

        Parameters are those that matter to the `task`; by default the config's own.
        """
        client = self._client
        values = [
            Param(key, without_credentials(str(value)))
            for key, value in _flatten(parameters_of(config, task))
        ]
        for start in range(0, len(values), _PARAMS_A_REQUEST):
            client.log_batch(self.run_id, params=values[start : start + _PARAMS_A_REQUEST])
        self.log_text(without_credentials(to_yaml(config)), f"{name}.yaml")

    def log_change(self, difference: str) -> None:
        """Tag a run that resumes with another config or other data with the `difference`."""
        self._client.set_tag(self.run_id, "changed", without_credentials(difference)[:5000])

    def log_picture(self, picture: NDArray[np.uint8], path: str) -> None:
        """Log an (H, W, 3) uint8 RGB `picture` as the artifact `path`."""
        with _storing(path):
            self._client.log_image(self.run_id, Image.fromarray(picture), artifact_file=path)

    def log_files(self, folder: Path, path: str) -> None:
        """Log all files of a local folder as artifacts below `path`."""
        with _storing(path):
            self._client.log_artifacts(self.run_id, str(folder), path)

    def log_text(self, text: str, path: str) -> None:
        """Log a text file as the artifact `path`."""
        with _storing(path):
            self._client.log_text(self.run_id, text, path)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set `tags`, name → value, in one request."""
        if tags:
            entities = [RunTag(key, value) for key, value in tags.items()]
            self._client.log_batch(self.run_id, tags=entities)

    def metrics(self) -> dict[str, float]:
        """The last value of every metric."""
        return dict(self._client.get_run(self.run_id).data.metrics)

    def reopen(self) -> None:
        """Mark the run as running again.

        Raises:
            TrackingError: if the server does not answer or has no such run.
        """
        _require_answer(self.tracking_uri)
        try:
            self._client.update_run(self.run_id, status="RUNNING")
        except MlflowException as error:
            raise TrackingError(_refusal(self.tracking_uri, error)) from error

    def finish(self, status: str) -> None:
        """Set the final `status`: `FINISHED`, `FAILED` or `KILLED`; a no-op while MLflow does not answer."""
        with suppress(TrackingError, MlflowException):
            _require_answer(self.tracking_uri)
            self._client.set_terminated(self.run_id, status)


@dataclass(frozen=True, slots=True)
class RunInput:
    """The dataset `name` in the folder `uri` that a run reads; `samples` has their number by split.

    The `digest` is equal for equal data; `version` is that of a prepared dataset, of raw data the digest. The
    `context` is MLflow's word for what it is read for: `train`, `validation` or `evaluation`.
    """

    name: str
    uri: str
    digest: str
    version: str
    samples: Mapping[str, int]
    context: str = EVALUATION

    @classmethod
    def of(cls, dataset: PreparedDataset, context: str) -> RunInput:
        """The input of a prepared dataset in a `context`, with the digest of its manifest."""
        manifest = dataset.manifest
        return cls(
            dataset.name, dataset.folder.uri, manifest.digest, manifest.version, manifest.samples, context
        )

    @classmethod
    def of_validation(cls, dataset: PreparedDataset, split: str) -> RunInput:
        """The part of a training dataset that is validated on; its digest is that of the split's shards.

        MLflow tells inputs of a run apart by name and digest alone.
        """
        manifest = dataset.manifest
        digest = seal_of({shard.name: shard.sha256 for shard in manifest.split(split)})
        samples = {split: manifest.samples[split]}
        return cls(dataset.name, dataset.folder.uri, digest, manifest.version, samples, VALIDATION)


def connect(create: bool = True) -> str:
    """Point MLflow at the user's server or at ./mlflow.db, and return the tracking URI.

    Without `create` the store is only read: a missing database stays missing.

    Raises:
        TrackingError: if the server or database does not answer.
        NoStore: if there is no database yet, without `create`.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's first start logs every migration of the database.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it raises what it logs
    uri = os.environ.get("MLFLOW_TRACKING_URI") or local_store(Path.cwd())
    database = database_of(uri)
    if not create and database is not None and not database.exists():
        raise NoStore(
            f"nothing is tracked in {database}: go to the folder of your runs, or set MLFLOW_TRACKING_URI"
        )
    mlflow.set_tracking_uri(uri)
    _require_answer(uri)
    wait_for_busy_databases()
    try:
        with alone_with(database):
            _experiment_id()
    except Exception as error:  # of MLflow, SQLAlchemy, or a database driver
        raise TrackingError(_refusal(uri, error)) from error
    # MLflow also creates the folder whose name is that of the database's with `?` as `%3F`; it stays empty.
    escaped = Path(uri.removeprefix("sqlite:///")).parent
    if database is not None and escaped.absolute() != database.parent:
        MlflowClient().search_registered_models(max_results=1)  # the registry's store creates it once more
        with suppress(OSError):
            os.removedirs(escaped)
    return uri


def store_name() -> str:
    """The tracking URI for messages, without user name and password."""
    return without_credentials(mlflow.get_tracking_uri())


def _refusal(uri: str, error: Exception) -> str:
    """Meaning of a store's refusal, in one line."""
    status = error.get_http_status_code() if isinstance(error, MlflowException) else None
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return (
            f"MLflow at {uri} refuses this user: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "(or MLFLOW_TRACKING_TOKEN), and that the server's --allowed-hosts has its name"
        )
    way_out = f"; pip install {error.name}" if isinstance(error, ModuleNotFoundError) else ""
    return f"MLflow at {uri}: {next(iter(str(error).splitlines()), type(error).__name__)}{way_out}"


def _require_answer(uri: str) -> None:
    """Ask a server for its health first, since MLflow itself would retry for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
    except requests.RequestException as error:
        raise TrackingError(f"MLflow at {uri} does not answer: {type(error).__name__}") from error


def _experiment_id() -> str:
    """Id of the experiment of all runs; created if missing."""
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    # The default artifact folder is relative to a process's directory, and Ray gives each worker its own.
    database = database_of(mlflow.get_tracking_uri())
    place = (database.parent / "mlruns").as_uri() if database else None
    return str(MlflowClient().create_experiment(EXPERIMENT, artifact_location=place))


def start_run(
    name: str,
    job: str,
    config: BaseModel,
    datasets: Sequence[PreparedDataset | RunInput],
    tags: Mapping[str, str] = MappingProxyType({}),
    task: TaskName | None = None,
) -> Run:
    """Start a run and log what makes it reproducible: config, data digests, commit, package versions.

    The run `name` is of the command `job`, its resolved `config` the artifact `<job>.yaml`; it reads
    `datasets`. `tags` are further ones of the run; `task` is that of the model, if the config has none.
    """
    uri = connect()
    versions = {f"version.{package}": importlib.metadata.version(package) for package in _PACKAGES}
    tags = {"job": job, **origin_tags(job), **versions, **tags}
    entity = MlflowClient().create_run(_experiment_id(), run_name=name, tags=tags)
    run = Run(uri, entity.info.run_id)
    try:
        describe_run(run, job, config, datasets, task)
    except BaseException:
        run.finish("KILLED")
        raise
    return run


def describe_run(
    run: Run,
    job: str,
    config: BaseModel,
    datasets: Sequence[PreparedDataset | RunInput],
    task: TaskName | None = None,
) -> None:
    """Log to a `run` the `config` of its `job` and the digests of its `datasets`; idempotent.

    `task` is that of the model, if the config has none.
    """
    run.log_config(config, job, task)
    inputs = [_input(one) for data in datasets for one in _inputs(data, job, config)]
    MlflowClient(run.tracking_uri).log_inputs(run.run_id, inputs)


def _inputs(data: PreparedDataset | RunInput, job: str, config: BaseModel) -> list[RunInput]:
    """What a run of a `job` reads of a dataset: one input for each use that it makes of it."""
    if isinstance(data, RunInput):
        return [data]
    split = getattr(config, "val_split", None)
    validated = [RunInput.of_validation(data, split)] if split in data.manifest.samples else []
    return [RunInput.of(data, TRAIN if job in _TRAINING else EVALUATION), *validated]


def data_of(run: RunEntity) -> dict[str, Dataset]:
    """The datasets of a `run` by name, with the digests of their manifests."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {entry.dataset.name: entry.dataset for entry in inputs if _context(entry) != VALIDATION}


def _context(entry: DatasetInput) -> str | None:
    return next((tag.value for tag in entry.tags if tag.key == MLFLOW_DATASET_CONTEXT), None)


@contextmanager
def finishing(run: Run, killed_by: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Set the status of a `run` by how its block ends: FINISHED, KILLED or FAILED.

    `killed_by` is the exception that, besides those of signals, means that it was ended on purpose.
    """
    try:
        with closing(partial(run.finish, "KILLED")):
            yield
    except (KeyboardInterrupt, SystemExit, killed_by):
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


def log_model(run: Run, folder: Path) -> str:
    """Log the model in `folder` (of `dpt.save_model`) as an MLflow model of the run; returns its URI.

    Its signature has a column named by the quantity that it predicts; its tags say what that is
    (`pipelines.tracking.model_kind`).
    """
    connect()
    config = ModelConfig.from_dict(read_config(folder))
    room, kind = Path(__file__).parent, ModelKind.of(config).tags
    # Strings: MLflow's server decodes base64 only in some forms of a request, and there for all rows or none.
    image = Schema([ColSpec(DataType.string, "image")])
    texts = [ColSpec(DataType.string, name, required=name == "unit") for name in ("unit", "error")]
    prediction = Schema([ColSpec(DataType.binary, config.quantity, required=False), *texts])
    # The run becomes MLflow's active one, without being ended.
    status = MlflowClient().get_run(run.run_id).info.status
    with mlflow.start_run(run_id=run.run_id), _storing("the model"):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(room / "served_model.py"),
            artifacts={"model": str(folder)},
            code_paths=[str(room.parents[1] / "dpt")],
            signature=ModelSignature(image, prediction),
            input_example=pd.DataFrame({"image": [_example()]}),
            metadata=kind,
            tags=kind,
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _MODEL_PACKAGES],
        )
    MlflowClient().update_run(run.run_id, status=status)
    return str(info.model_uri)


def _example() -> str:
    """A picture as a server takes it: a PNG file in base64."""
    red, green = np.mgrid[0:64:2, 0:96:2].astype(np.uint8)
    png = encode_png(np.stack([red, green, red], axis=-1))
    return base64.b64encode(png).decode("ascii")


def search_runs(query: str, order: str = "attributes.start_time DESC") -> list[RunEntity]:
    """All runs of the experiment that match an MLflow filter `query`, by the column `order`: newest first.

    Needs `connect`.
    """
    found: list[RunEntity] = mlflow.search_runs(
        experiment_names=[EXPERIMENT], filter_string=query, order_by=[order], output_format="list"
    )
    return found


def quoted(text: str) -> str:
    """`text` as a string of an MLflow filter, which cannot hold an apostrophe."""
    return "'{}'".format(text.replace("'", ""))


def find_run(name_or_id: str) -> str:
    """The id of a run, given `name_or_id`; of several with that name the newest.

    Raises:
        TrackingError: if there is none.
    """
    connect(create=False)
    named = search_runs(f"attributes.run_name = {quoted(name_or_id)}")
    if named:
        return str(named[0].info.run_id)
    try:
        return str(MlflowClient().get_run(name_or_id).info.run_id)
    except MlflowException as error:
        raise TrackingError(f"no run {name_or_id!r} in {store_name()}") from error


def fetch_model(uri: str) -> Path:
    """Download the model at `uri` (`models:/dpt@champion`, `models:/dpt/3`); returns its local folder.

    Raises:
        TrackingError: if there is no such model, version or alias.
    """
    connect(create=False)
    try:
        local = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    except MlflowException as error:
        reason = f"{uri}: {str(error).splitlines()[0]}"
        raise TrackingError(f"{reason} (in {store_name()}{_aliases(uri)})") from error
    configs = sorted(Path(local).glob(f"artifacts/*/{CONFIG}"))
    if not configs:
        raise TrackingError(
            f"{uri} is a model, but not one that dpt registered: it has no artifacts/*/{CONFIG}"
        )
    return configs[0].parent


def fetch_config(model: LoggedModel) -> ModelConfig | None:
    """The config of a logged `model`, without its weights; None if dpt did not log it.

    Raises:
        TrackingError: if its files cannot be read.
    """
    place = f"{model.artifact_location}/artifacts"
    try:
        folders = mlflow.artifacts.list_artifacts(artifact_uri=place)
        if not folders:
            return None
        file = f"{place}/{Path(folders[0].path).name}/{CONFIG}"
        local = mlflow.artifacts.download_artifacts(artifact_uri=file)
    except (MlflowException, OSError) as error:
        raise TrackingError(f"{model.model_id}: {str(error).splitlines()[0]}") from error
    return ModelConfig.from_dict(read_config(Path(local).parent))


def _aliases(uri: str) -> str:
    """What a message adds about `uri`: the aliases that its model has, or which models are registered."""
    name, client = uri.partition(":/")[2].partition("@")[0].partition("/")[0], MlflowClient()
    try:
        there = [f"models:/{name}@{alias}" for alias in client.get_registered_model(name).aliases]
    except MlflowException:
        there = [f"models:/{model.name}@…" for model in client.search_registered_models()]
    return f"; there are: {', '.join(sorted(there)) or 'none'}"


def _input(data: RunInput) -> DatasetInput:
    with warnings.catch_warnings():
        # Local paths have two equal interpretations in MLflow 3.17.
        warnings.filterwarnings("ignore", message=".*interpreted in multiple ways.*")
        source = resolve_dataset_source(data.uri)
    # MLflow keeps 36 characters of a digest.
    described = MetaDataset(source, data.name, data.digest[:32])  # type: ignore[abstract]
    entity = Dataset(**described.to_dict(), schema="{}", profile=json.dumps(dict(data.samples)))
    tags = {"version": data.version, MLFLOW_DATASET_CONTEXT: data.context}
    return DatasetInput(entity, [InputTag(key, value) for key, value in tags.items()])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
