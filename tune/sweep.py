"""`dpt tune`: the trials of a sweep on Ray Tune, each a training on Ray Train.

A sweep lives in `<storage>/<name>`: `sweep.yaml`, its plan, and a folder a trial, with a `result.json` once
that is finished. These files are all its state: starting the sweep again runs the trials that are missing.
Ray Tune places trials, restarts those that crashed, and stops hopeless ones; its own files are deleted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mlflow import MlflowClient
from ray import tune

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import owning
from datasets_prep.storage.writing import explained
from pipelines.cluster.actors import saying_which_actors_died
from pipelines.cluster.ray_private import sweep_state_logger
from pipelines.cluster.session import ADDRESS, connect, cpus_per_worker, wants_gpu
from pipelines.tracking import runs as tracking
from pipelines.training.board import open_board, showing, stopping_on_signals
from tune import records
from tune.measurements import measure_latency
from tune.plan import SweepPlan
from tune.runs import SweepExists, ending_children, open_child, open_parent
from tune.scheduling import DRIVER_RESOURCES, EarlyStopping, place_trials, removing_orphans, scheduler
from tune.trial import SweepPlace, is_finished, run_trial

_PLAN_FILE = "sweep.yaml"
_TUNE_FOLDER = "ray_tune"
_QUIET = {
    # CSV, JSON and TensorBoard files of each trial: MLflow has all of that.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The last result of a trial is its outcome, without a metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


class SweepFailed(UserError):
    """Trials of a sweep failed; the message names them and the reasons."""


class SweepStopped(UserError):
    """A sweep was stopped on purpose before its last trial; it can be resumed."""


def read_plan(name: str, storage: str) -> SweepPlan:
    """The plan of the sweep `name` in `storage`.

    Raises:
        SweepExists: if there is none.
    """
    folder = Folder(storage) / name
    if not folder.exists(_PLAN_FILE):
        raise SweepExists(f"no sweep {name} in {Folder(storage).uri}")
    return SweepPlan.from_yaml(folder.read_bytes(_PLAN_FILE), f"{folder.uri}/{_PLAN_FILE}")


def run_sweep(plan: SweepPlan, storage: str, show: Callable[[str], None] = print) -> tracking.Run:
    """Run the trials of the sweep of a `plan` that are not finished; returns the sweep's MLflow run.

    It lives in `<storage>/<plan.name>`, `storage` a path or URI; `show` is called with each line of progress.

    Raises:
        SweepExists: if there is another sweep of that name.
        SweepFailed: once all trials have ended, if some failed.
        SweepStopped: after a signal, or when the time is up; running trials have saved a checkpoint.
        Owned: if another process runs it.
    """
    folder = Folder(storage) / plan.name
    with owning(folder, f"sweep {plan.name}", show):
        return _run_owned(plan, storage, folder, show)


def _run_owned(plan: SweepPlan, storage: str, folder: Folder, show: Callable[[str], None]) -> tracking.Run:
    if folder.exists(_PLAN_FILE) and read_plan(plan.name, storage).digest != plan.digest:
        raise SweepExists(
            f"there is another sweep {plan.name} in {folder.uri}: resume that by --resume {plan.name}, "
            "or choose another --name"
        )
    folder.write_text(_PLAN_FILE, plan.to_yaml())
    run = open_parent(plan)
    place = SweepPlace(folder.uri, run, 1, None)
    with tracking.finishing(run, killed_by=SweepStopped), ending_children(run):
        missing = [number for number, trial in enumerate(plan.trials) if not is_finished(place, trial)]
        finished = len(plan.trials) - len(missing)
        show(f"sweep {plan.name}: {len(plan.trials)} trials, {finished} of them finished")
        if missing:
            _run_trials(plan, place, missing, show)
        _measure_latencies(plan, place, show)
    return run


def _run_trials(
    plan: SweepPlan, place: SweepPlace, missing: Sequence[int], show: Callable[[str], None]
) -> None:
    os.environ.update(_QUIET)
    logging.getLogger(sweep_state_logger()).setLevel(logging.CRITICAL)  # a sweep's state is its own files
    connect()
    train = plan.train
    placement = place_trials(plan.tune.concurrency, train.most_workers, wants_gpu(train.device))
    show(f"trials at once: {min(len(missing), placement.trials)}")
    place = replace(place, threads=placement.threads, cluster=os.environ.get(ADDRESS))
    board = open_board()
    trainable = tune.with_parameters(run_trial, plan=plan, place=place, board=board)
    with explained(place.folder):
        tuner = tune.Tuner(
            tune.with_resources(trainable, DRIVER_RESOURCES),
            param_space={"trial": tune.grid_search(list(missing))},
            tune_config=tune.TuneConfig(
                scheduler=scheduler(plan), max_concurrent_trials=placement.drivers, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name=_TUNE_FOLDER,
                storage_path=place.folder,
                failure_config=tune.FailureConfig(max_failures=plan.tune.max_failures),
                callbacks=[EarlyStopping(plan, place)],
                verbose=0,
            ),
        )
    limit = _time_limit(plan.tune.hours, board)
    deaths, results = saying_which_actors_died(show), list[tune.Result]()
    with showing(board, show), deaths, stopping_on_signals(board, show) as stopped, limit, removing_orphans():
        try:
            with explained(place.folder):
                grid = tuner.fit()
            results = [grid[number] for number in range(len(grid))]
        except SystemExit:
            if not stopped:  # else trials are starting, which hear of it too late
                raise
    folder = Folder(place.folder)
    if folder.exists(_TUNE_FOLDER):
        folder.fs.rm(folder.path_of(_TUNE_FOLDER), recursive=True)
    _require_finished(plan, place, missing, results)


@contextmanager
def _time_limit(hours: float | None, board: Any) -> Iterator[None]:
    """Stop all trials, each with a checkpoint, when the time is up."""
    if hours is None:
        yield
        return
    timer = threading.Timer(hours * 3600, lambda: board.request_stop.remote())
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _require_finished(
    plan: SweepPlan, place: SweepPlace, missing: Sequence[int], results: Sequence[tune.Result]
) -> None:
    reasons = []
    for result in results:
        config, metrics = result.config or {}, result.metrics or {}
        path = plan.trials[config["trial"]].path
        if result.error is not None:
            reasons.append(f"{path}: {str(result.error).strip().splitlines()[-1]}")
        elif metrics.get("outcome") == "failed":
            reasons.append(f"{path}: {metrics['reason']}")
    left = [plan.trials[number].path for number in missing if not is_finished(place, plan.trials[number])]
    again, why = f"`dpt tune --resume {plan.name}` resumes", "; ".join(reasons)
    if reasons:
        raise SweepFailed(f"{len(left)} of {len(plan.trials)} trials are not finished: {why}; {again}")
    if left:
        raise SweepStopped(f"sweep {plan.name} is stopped with {len(left)} trials to go; {again}")


def _measure_latencies(plan: SweepPlan, place: SweepPlace, show: Callable[[str], None]) -> None:
    """Measure the columns of Table 9 of every variant that lacks them."""
    for trial in plan.measured:
        run = open_child(plan, trial, place.parent)
        known = run.metrics()
        if records.LATENCY in known:
            continue
        connect()
        config, use_gpu = plan.config(trial), wants_gpu(plan.train.device)
        with tracking.finishing(run):
            found = measure_latency(
                config.model, min(config.crop_size), plan.tune.latency_runs, use_gpu, cpus_per_worker(1)
            )
            MlflowClient(run.tracking_uri).set_tag(run.run_id, records.LATENCY_DEVICE, found.device)
            metrics = {records.PARAMETERS: found.parameters_millions, records.LATENCY: found.milliseconds}
            run.log_metrics({k: v for k, v in metrics.items() if k not in known}, config.steps)
        show(
            f"{trial.variant.key}: {found.parameters_millions:.1f} million parameters, "
            f"{found.milliseconds:.1f} ms on {found.device}"
        )
