"""Everything MLflow: runs, metrics, dataset inputs, pictures, and the registered model.

Where runs go: the server that MLFLOW_TRACKING_URI names, else an SQLite file in the working directory. A run
is started by the driver and logged to by rank 0 of the training processes, which may be on another machine;
both hold a `Run`, which is only an address.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import mlflow
import numpy as np
import requests
from mlflow import MlflowClient
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset
from dpt.weights.folder import CONFIG, read_config
from pipelines.config_files import to_yaml

EXPERIMENT = "dpt"
MODEL_SCHEME = "models:/"
_ANSWER_SECONDS = 10
_PARAMS_A_REQUEST = 100
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "safetensors",
    "opencv-python-headless",
    "ray",
    "mlflow",
)
_MODEL_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "opencv-python-headless")
_OUTPUTS = {"depth": "inverse_depth", "segmentation": "classes"}
"""Task of a model → the column that it answers with, see `pipelines.tracking.served_model`."""


class TrackingError(UserError):
    """A run or model that is not there, or a tracking server that does not answer."""


class MetricPoint(NamedTuple):
    """One value of a metric; `timestamp` in milliseconds since 1970."""

    name: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Run:
    """The address of one MLflow run."""

    tracking_uri: str
    run_id: str

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at a step, in one request."""
        now = int(time.time() * 1000)
        self.log_points([MetricPoint(name, float(value), now, step) for name, value in metrics.items()])

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Log at most 1,000 values, of any steps, in one request."""
        if points:
            self._client.log_batch(self.run_id, metrics=[Metric(*point) for point in points])

    def logged_steps(self, name: str) -> set[int]:
        """The steps at which a metric has a value already."""
        return {point.step for point in self._client.get_metric_history(self.run_id, name)}

    def log_config(self, config: BaseModel, name: str) -> None:
        """Log a resolved config: as parameters, to compare runs by, and whole, as `<name>.yaml`."""
        client = self._client
        values = [Param(key, str(value)) for key, value in _flatten(config.model_dump(mode="json"))]
        for start in range(0, len(values), _PARAMS_A_REQUEST):
            client.log_batch(self.run_id, params=values[start : start + _PARAMS_A_REQUEST])
        client.log_text(self.run_id, to_yaml(config), f"{name}.yaml")

    def log_change(self, difference: str) -> None:
        """Note in the run that it went on with another config or other data than it was started with."""
        self._client.set_tag(self.run_id, "changed", difference[:5000])

    def log_picture(self, picture: NDArray[np.uint8], path: str) -> None:
        """Log an (H, W, 3) uint8 RGB picture as an artifact."""
        self._client.log_image(self.run_id, Image.fromarray(picture), artifact_file=path)

    def log_files(self, folder: Path, path: str) -> None:
        """Log all files of a local folder as artifacts below `path`."""
        self._client.log_artifacts(self.run_id, str(folder), path)

    def log_text(self, text: str, path: str) -> None:
        """Log a text file as an artifact."""
        self._client.log_text(self.run_id, text, path)

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
        """Close the run: `FINISHED`, `FAILED` or `KILLED`, unless MLflow is away: then it stays as it is."""
        with suppress(TrackingError, MlflowException):
            _require_answer(self.tracking_uri)
            self._client.set_terminated(self.run_id, status)


@dataclass(frozen=True, slots=True)
class RunInput:
    """Data that a run works on.

    Attributes:
        name: of the dataset.
        uri: its folder.
        digest: two inputs of one digest are the same data.
        version: of a prepared dataset; of raw data the digest.
        samples: split → number of samples.
    """

    name: str
    uri: str
    digest: str
    version: str
    samples: Mapping[str, int]

    @classmethod
    def of(cls, dataset: PreparedDataset) -> RunInput:
        """A prepared dataset: known by the digest of its manifest."""
        manifest = dataset.manifest
        return cls(dataset.name, dataset.folder.uri, manifest.digest, manifest.version, manifest.samples)


class _LoggedInput(Dataset):
    """An input as MLflow takes it."""

    def __init__(self, source: DatasetSource, data: RunInput) -> None:
        self._samples = dict(data.samples)
        # MLflow keeps 36 characters of a digest.
        super().__init__(source, data.name, data.digest[:32])

    def _compute_digest(self) -> str:
        return str(self.digest)

    @property
    def profile(self) -> dict[str, int]:
        """Number of samples a split."""
        return self._samples

    @property
    def schema(self) -> None:
        """Every shard has `datasets_prep.schema.SCHEMA`."""
        return None

    def to_dict(self) -> dict[str, str]:
        """As MLflow stores it."""
        return super().to_dict() | {"profile": json.dumps(self._samples), "schema": "{}"}


def connect() -> str:
    """Point MLflow at the user's server or at ./mlflow.db, and return the tracking URI.

    Raises:
        TrackingError: if the server does not answer.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Its first start reports every migration of the database.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    _require_answer(uri)
    try:
        _experiment_id()
    except MlflowException as error:
        raise TrackingError(_refusal(uri, error)) from error
    return uri


def _refusal(uri: str, error: MlflowException) -> str:
    """What a server's refusal means, in one line."""
    if error.get_http_status_code() in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return (
            f"MLflow at {uri} refuses this user: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "(or MLFLOW_TRACKING_TOKEN), and that the server's --allowed-hosts has its name"
        )
    return f"MLflow at {uri}: {str(error).splitlines()[0]}"


def _require_answer(uri: str) -> None:
    """Ask a server whether it is there, for MLflow itself would try again for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
    except requests.RequestException as error:
        raise TrackingError(f"MLflow at {uri} does not answer: {type(error).__name__}") from error


def _experiment_id() -> str:
    """The id of the experiment that holds all runs; it is made if it is not there."""
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    # The default place is relative to a process's directory, and Ray gives each worker its own.
    database = mlflow.get_tracking_uri().removeprefix("sqlite:///")
    local = database != mlflow.get_tracking_uri()
    place = (Path(database).absolute().parent / "mlruns").as_uri() if local else None
    return str(MlflowClient().create_experiment(EXPERIMENT, artifact_location=place))


def start_run(
    name: str,
    job: str,
    config: BaseModel,
    datasets: Sequence[PreparedDataset | RunInput],
    tags: Mapping[str, str] = MappingProxyType({}),
) -> Run:
    """Start a run and log what makes it reproducible: config, data digests, commit, package versions.

    Args:
        tags: further ones.
    """
    uri = connect()
    tags = {"job": job, "git_commit": _git_commit(), **_package_versions(), **tags}
    entity = MlflowClient().create_run(_experiment_id(), run_name=name, tags=tags)
    run = Run(uri, entity.info.run_id)
    describe_run(run, job, config, datasets)
    return run


def describe_run(
    run: Run, job: str, config: BaseModel, datasets: Sequence[PreparedDataset | RunInput]
) -> None:
    """Log config and data digests of a run; once more does no harm, should a first time have been cut off."""
    run.log_config(config, job)
    _log_inputs(run, [data if isinstance(data, RunInput) else RunInput.of(data) for data in datasets])


@contextmanager
def finishing(run: Run, killed_by: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Close a run with the status that its block ends with.

    Args:
        killed_by: what means, besides Ctrl-C, that it was ended on purpose.
    """
    try:
        yield
    except (KeyboardInterrupt, killed_by):
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


def log_model(run: Run, folder: Path) -> str:
    """Log a saved model (`dpt.save_model`) as an MLflow model of the run; returns its URI."""
    connect()
    room = Path(__file__).parent
    with _resumed(run), warnings.catch_warnings():
        # It asks for an example to infer the signature from, which is given.
        warnings.filterwarnings("ignore", message=".*input example.*")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(room / "served_model.py"),
            artifacts={"model": str(folder)},
            code_paths=[str(room.parents[1] / "dpt")],
            signature=_signature(folder),
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _MODEL_PACKAGES],
        )
    return str(info.model_uri)


def _signature(folder: Path) -> ModelSignature:
    """Of a saved model: encoded images in, encoded arrays out."""
    task = read_config(folder)["task"]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([ColSpec(DataType.binary, _OUTPUTS[task])]),
    )


def find_run(name_or_id: str) -> str:
    """The id of a run, given that or its name (the newest of that name).

    Raises:
        TrackingError: if there is none.
    """
    connect()
    client = MlflowClient()
    quoted = name_or_id.replace("'", "")
    named = client.search_runs(
        [_experiment_id()],
        f"attributes.run_name = '{quoted}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if named:
        return str(named[0].info.run_id)
    try:
        return str(client.get_run(name_or_id).info.run_id)
    except MlflowException as error:
        raise TrackingError(f"no run {name_or_id!r} in {mlflow.get_tracking_uri()}") from error


def fetch_model(uri: str) -> Path:
    """Fetch a registered model (`models:/dpt@champion`, `models:/dpt/3`); returns its weights' local folder.

    Raises:
        TrackingError: if there is no such model, version or alias.
    """
    connect()
    try:
        local = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    except MlflowException as error:
        raise TrackingError(
            f"{uri}: {str(error).splitlines()[0]} (in {mlflow.get_tracking_uri()})"
        ) from error
    configs = sorted(Path(local).glob(f"artifacts/*/{CONFIG}"))
    if not configs:
        raise TrackingError(f"{uri} is a model, but none of this program's: it has no artifacts/*/{CONFIG}")
    return configs[0].parent


@contextmanager
def _resumed(run: Run) -> Iterator[None]:
    """Make the run MLflow's active one, without ending it."""
    status = MlflowClient().get_run(run.run_id).info.status
    with mlflow.start_run(run_id=run.run_id):
        yield
    MlflowClient().update_run(run.run_id, status=status)


def _log_inputs(run: Run, inputs: Sequence[RunInput]) -> None:
    with _resumed(run):
        for data in inputs:
            with warnings.catch_warnings():
                # Local paths have two equal interpretations in MLflow 3.17.
                warnings.filterwarnings("ignore", message=".*interpreted in multiple ways.*")
                source = resolve_dataset_source(data.uri)
            entity = _LoggedInput(source, data)
            mlflow.log_input(entity, context="train", tags={"version": data.version})


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _git_commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _package_versions() -> dict[str, str]:
    return {f"version.{name}": importlib.metadata.version(name) for name in _PACKAGES}
