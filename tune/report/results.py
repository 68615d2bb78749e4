"""A sweep as MLflow knows it: read anywhere, at any time, from the names in `tune.records` alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from numpy.typing import NDArray

from pipelines.tracking import runs as tracking
from pipelines.tracking.runs import TrackingError
from tune import records

FINISHED = "FINISHED"
_NOT_STARTED = "SCHEDULED"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared dataset that a run took in: its digest, and samples a split."""

    name: str
    digest: str
    samples: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a sweep.

    Attributes:
        rows: table → title of the variant's row.
        status: as MLflow has it: FINISHED, FAILED, KILLED, RUNNING, SCHEDULED.
        stopped_early: the step at which the scheduler ended it.
        metrics: the last value of each.
        parameters: the resolved training config.
    """

    run_id: str
    name: str
    variant: str
    seed: int
    rows: Mapping[str, str]
    status: str
    stopped_early: str | None
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    data: tuple[Dataset, ...]

    @property
    def counts(self) -> bool:
        """Whether its figures are those of a whole training."""
        return self.status == FINISHED and self.stopped_early is None

    @property
    def state(self) -> str:
        """How it ended, in words."""
        if self.stopped_early is not None:
            return f"stopped early at step {self.stopped_early}"
        return {_NOT_STARTED: "not started"}.get(self.status, self.status.lower())


@dataclass(frozen=True, slots=True)
class SweepResults:
    """A sweep and its trials, by variant and seed.

    Attributes:
        plan: what `records.SWEEP_FILE` says: `tables`, `variants`, `seeds` and more; empty if there is none.
        trials: those that the plan has and nobody started are among them.
        started: milliseconds since 1970.
    """

    name: str
    run_id: str
    status: str
    started: int
    tags: Mapping[str, str]
    plan: Mapping[str, Any]
    trials: tuple[Trial, ...]

    def trainings(self) -> tuple[Trial, ...]:
        """The trials but those of variants of which parameters and latency alone are asked."""
        trained = _trained_tables(self.plan)
        return tuple(trial for trial in self.trials if not self.plan or trained & trial.rows.keys())

    def data(self) -> tuple[Dataset, ...]:
        """All datasets of its trials, by name."""
        found = {(d.name, d.digest): d for trial in self.trials for d in trial.data}
        return tuple(found[key] for key in sorted(found))


def find_sweep(name: str) -> str | None:
    """The id of the newest sweep of that name, if there is one."""
    tracking.connect()
    found = _search(f"{_IS_SWEEP} AND tags.{records.SWEEP} = '{name.replace(chr(39), '')}'", limit=1)
    return str(found[0].info.run_id) if found else None


def sweep_names() -> list[str]:
    """Names of all sweeps, newest first."""
    tracking.connect()
    return list(dict.fromkeys(run.data.tags[records.SWEEP] for run in _search(_IS_SWEEP)))


def read_sweep(name: str) -> SweepResults:
    """Read a sweep.

    Raises:
        TrackingError: if there is none of that name.
    """
    run_id = find_sweep(name)
    if run_id is None:
        known = ", ".join(sweep_names()) or "none"
        raise TrackingError(
            f"no sweep {name!r} in {mlflow.get_tracking_uri()}, and no model there; sweeps there are: {known}"
        )
    run = MlflowClient().get_run(run_id)
    children = _search(f"tags.`{records.PARENT}` = '{run_id}'")
    # Of doubles, which a server may have kept, the newest that is whole.
    trials: dict[tuple[str, int], Trial] = {}
    for trial in reversed([_trial(child) for child in children]):
        earlier = trials.get((trial.variant, trial.seed))
        if earlier is None or trial.counts or not earlier.counts:
            trials[trial.variant, trial.seed] = trial
    plan = _plan(run_id)
    for trial in _planned(plan):
        trials.setdefault((trial.variant, trial.seed), trial)
    return SweepResults(
        name=name,
        run_id=run_id,
        status=run.info.status,
        started=run.info.start_time,
        tags=run.data.tags,
        plan=plan,
        trials=tuple(trials[key] for key in sorted(trials)),
    )


def history(trial: Trial, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a metric, each (N,), by step; the last value logged at a step counts."""
    points = MlflowClient().get_metric_history(trial.run_id, metric)
    by_step = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
    steps = sorted(by_step)
    return np.array(steps, np.float64), np.array([by_step[step] for step in steps], np.float64)


def pictures(trial: Trial) -> dict[str, NDArray[np.uint8]]:
    """The pictures that a trial left: artifact path → (H, W, 3) uint8 RGB."""
    if not MlflowClient().list_artifacts(trial.run_id, records.PICTURES):
        return {}
    with tempfile.TemporaryDirectory(prefix="dpt-report-") as folder:
        local = Path(
            mlflow.artifacts.download_artifacts(
                run_id=trial.run_id, artifact_path=records.PICTURES, dst_path=folder
            )
        )
        found = {f"{records.PICTURES}/{path.name}": cv2.imread(str(path)) for path in local.glob("*.png")}
    return {
        path: np.ascontiguousarray(picture[..., ::-1], np.uint8)
        for path, picture in sorted(found.items())
        if picture is not None
    }


_IS_SWEEP = f"tags.{records.JOB} = '{records.SWEEP_JOB}'"


def _search(query: str, limit: int | None = None) -> Sequence[Run]:
    """Runs of the experiment, newest first."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None, "connecting makes it"
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            query,
            order_by=["attributes.start_time DESC"],
            max_results=limit or 1000,
            page_token=token,
        )
        found += page
        if limit or not (token := page.token):
            return found


def _trial(run: Run) -> Trial:
    tags = run.data.tags
    rows = {table: title for tag, title in tags.items() if (table := records.table_of_tag(tag))}
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return Trial(
        run_id=run.info.run_id,
        name=run.info.run_name,
        variant=tags.get(records.VARIANT, run.info.run_name),
        seed=int(tags.get(records.SEED, 0)),
        rows=rows,
        status=run.info.status,
        stopped_early=tags.get(records.STOPPED_EARLY),
        metrics=run.data.metrics,
        parameters=run.data.params,
        tags=tags,
        data=tuple(_dataset(entry.dataset) for entry in inputs),
    )


def _trained_tables(plan: Mapping[str, Any]) -> set[str]:
    return {table["name"] for table in plan.get("tables", []) if table["trained"]}


def _planned(plan: Mapping[str, Any]) -> Iterator[Trial]:
    """The trials of a plan: variants with every seed; with the first where none of its tables is trained."""
    trained = _trained_tables(plan)
    for variant in plan.get("variants", []):
        rows, seeds = variant["rows"], plan["seeds"]
        for seed in seeds if trained & rows.keys() else seeds[:1]:
            yield Trial("", "", variant["key"], seed, rows, _NOT_STARTED, None, {}, {}, {}, ())


def _dataset(entity: Any) -> Dataset:
    profile = json.loads(entity.profile) if entity.profile else {}
    return Dataset(entity.name, entity.digest, profile if isinstance(profile, dict) else {})


def _plan(run_id: str) -> Mapping[str, Any]:
    client = MlflowClient()
    if records.SWEEP_FILE not in {entry.path for entry in client.list_artifacts(run_id)}:
        return {}
    with tempfile.TemporaryDirectory(prefix="dpt-report-") as folder:
        path = client.download_artifacts(run_id, records.SWEEP_FILE, folder)
        return yaml.safe_load(Path(path).read_text("utf-8")) or {}
