"""A sweep as MLflow has it: read on any machine, at any time, by the names in `tune.records` alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from numpy.typing import NDArray

from datasets_prep.storage.sealed import DamagedFile, checked
from datasets_prep.strict_yaml import InvalidYaml, load_yaml
from pipelines.tracking import runs as tracking
from pipelines.tracking.runs import TrackingError, data_of
from tune import records

FINISHED = "FINISHED"
_NOT_STARTED = "SCHEDULED"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared dataset that a run reads: `name`, `digest`, and `samples` by split."""

    name: str
    digest: str
    samples: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a sweep: a `variant` with a `seed`, on some `data`.

    Attributes:
        run_id: its MLflow run, which has the `tags`; empty if it was not started.
        rows: table → title of the variant's row.
        status: of the run: FINISHED, FAILED, KILLED, RUNNING; SCHEDULED if it was not started.
        stopped_early: the step at which the scheduler stopped it.
        metrics: the last value of each.
        parameters: the resolved training config.
    """

    run_id: str
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
        """Whether its metrics are those of a complete training."""
        return self.status == FINISHED and self.stopped_early is None

    @property
    def state(self) -> str:
        """Status in words."""
        if self.stopped_early is not None:
            return f"stopped early at step {self.stopped_early}"
        return {_NOT_STARTED: "not started"}.get(self.status, self.status.lower())


@dataclass(frozen=True, slots=True)
class SweepResults:
    """The sweep `name` and its `trials`, by variant and seed, also those of the plan that were not started.

    Attributes:
        run_id: its parent run in MLflow, which has the `tags`.
        started: milliseconds since 1970.
        plan: content of `records.SWEEP_FILE`: `tables`, `variants`, `seeds` and more; empty if it is missing.
    """

    name: str
    run_id: str
    started: int
    tags: Mapping[str, str]
    plan: Mapping[str, Any]
    trials: tuple[Trial, ...]

    def trainings(self) -> tuple[Trial, ...]:
        """The trials without those whose variant needs no training, only parameters and latency."""
        trained = _trained_tables(self.plan)
        return tuple(trial for trial in self.trials if not self.plan or trained & trial.rows.keys())

    def data(self) -> tuple[Dataset, ...]:
        """All datasets of its trials, by name."""
        found = {(d.name, d.digest): d for trial in self.trials for d in trial.data}
        return tuple(found[key] for key in sorted(found))


def read_sweep(name: str) -> SweepResults:
    """Read the newest sweep `name`.

    Raises:
        TrackingError: if there is none.
    """
    run = records.find_sweep(name)
    if run is None:
        known = dict.fromkeys(run.data.tags[records.SWEEP] for run in tracking.search_runs(records.IS_SWEEP))
        raise TrackingError(
            f"no sweep {name!r} in {tracking.store_name()}, and no model there; sweeps there are: "
            f"{', '.join(known) or 'none'}"
        )
    # Of duplicates, which a server may have created, the newest complete one.
    trials: dict[tuple[str, int], Trial] = {}
    for trial in reversed([_trial(child) for child in records.child_runs(run.info.run_id)]):
        earlier = trials.get((trial.variant, trial.seed))
        if earlier is None or trial.counts or not earlier.counts:
            trials[trial.variant, trial.seed] = trial
    plan = _plan(run.info.run_id)
    # Each variant has a trial with every seed, or with the first if none of its tables is trained.
    for variant in plan.get("variants", []):
        key, rows, seeds = variant["key"], variant["rows"], plan["seeds"]
        for seed in seeds if _trained_tables(plan) & rows.keys() else seeds[:1]:
            not_started = Trial("", key, seed, rows, _NOT_STARTED, None, {}, {}, {}, ())
            trials.setdefault((key, seed), not_started)
    ordered, info = tuple(trials[key] for key in sorted(trials)), run.info
    return SweepResults(name, info.run_id, info.start_time, run.data.tags, plan, ordered)


def history(trial: Trial, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a `metric` of a `trial`, each (N,) float64, by step; of a step the last value."""
    points = MlflowClient().get_metric_history(trial.run_id, metric)
    by_step = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
    steps = sorted(by_step)
    return np.array(steps, np.float64), np.array([by_step[step] for step in steps], np.float64)


def _trial(run: Run) -> Trial:
    tags = run.data.tags
    rows = {table: title for tag, title in tags.items() if (table := records.table_of_tag(tag))}
    inputs = list(data_of(run).values())
    profiles = [json.loads(entity.profile) if entity.profile else {} for entity in inputs]
    samples = [profile if isinstance(profile, dict) else {} for profile in profiles]
    return Trial(
        run_id=run.info.run_id,
        variant=tags.get(records.VARIANT, run.info.run_name),
        seed=int(tags.get(records.SEED, 0)),
        rows=rows,
        status=run.info.status,
        stopped_early=tags.get(records.STOPPED_EARLY),
        metrics=run.data.metrics,
        parameters=run.data.params,
        tags=tags,
        data=tuple(
            Dataset(one.name, one.digest, splits) for one, splits in zip(inputs, samples, strict=True)
        ),
    )


def _trained_tables(plan: Mapping[str, Any]) -> set[str]:
    return {table["name"] for table in plan.get("tables", []) if table["trained"]}


def _plan(run_id: str) -> Mapping[str, Any]:
    client, where = MlflowClient(), f"{records.SWEEP_FILE} in MLflow's run {run_id}"
    if records.SWEEP_FILE not in {entry.path for entry in client.list_artifacts(run_id)}:
        return {}
    with tempfile.TemporaryDirectory(prefix="dpt-report-") as folder:
        path = client.download_artifacts(run_id, records.SWEEP_FILE, folder)
        try:
            return checked(load_yaml(Path(path).read_bytes()), where)
        except InvalidYaml as error:
            raise DamagedFile(f"{where} is damaged: {error}") from error
