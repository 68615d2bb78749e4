"""One trial: train a variant, then measure what its tables need of the trained model.

Every step is idempotent: a training resumes from its newest checkpoint, a trained model is not trained again,
a metric that MLflow has is not measured again, and a trial with a `result.json` is not started.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

import dpt
from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.sealed import intact, sealed
from pipelines.cluster.session import ADDRESS
from pipelines.tracking import runs as tracking
from pipelines.train import TrainingStopped, train
from pipelines.training.board import Supervision
from pipelines.training.checkpoint_store import CheckpointStore
from tune import records
from tune.measurements import count_parameters, log_pictures, log_resolutions, resolutions
from tune.plan import SweepPlan, Trial
from tune.runs import open_child, training_hours

RESULT_FILE = "result.json"
"""In the folder of a trial that is finished: its run and metrics."""

_TRAINED_FILE = "trained.json"

Say = Callable[[str], None]
"""Takes a line for the user."""


@dataclass(frozen=True)
class SweepPlace:
    """Where a sweep is stored, tracked and run; plain data, since it is sent to the trials.

    Attributes:
        folder: of the sweep; path or URI.
        parent: its MLflow run.
        threads: CPU cores of each training process without GPU.
        cluster: RAY_ADDRESS of the sweep's own process; None for a local Ray.
    """

    folder: str
    parent: tracking.Run
    threads: int
    cluster: str | None

    def folder_of(self, trial: Trial) -> Folder:
        """The folder of a `trial`."""
        return Folder(self.folder) / trial.path


def run_trial(config: dict[str, Any], plan: SweepPlan, place: SweepPlace, board: Any) -> dict[str, Any]:
    """Run a trial; Ray Tune calls it in a driver that holds no resources.

    `config` has the number of the `trial` in the sweep's `plan`; `place` is the sweep's, `board` its
    `pipelines.training.board.ProgressBoard`.

    Returns:
        `outcome`: `finished`, `stopped` or `failed`; and of `failed` the `reason`, which no retry mends.
    """
    os.environ["MLFLOW_TRACKING_URI"] = place.parent.tracking_uri
    if place.cluster:
        os.environ[ADDRESS] = place.cluster
    trial = plan.trials[config["trial"]]

    def say(line: str) -> None:
        board.write.remote(f"{trial.path}: {line}")

    def stop_wanted(heeds: bool = False) -> bool:
        return bool(ray.get(board.stop_requested.remote(heeds, trial.path)))

    if stop_wanted():
        return {"outcome": "stopped"}
    try:
        _Work(plan, place, trial, say, stop_wanted).run()
    except TrainingStopped:
        return {"outcome": "stopped"}
    except UserError as error:
        say(str(error))
        return {"outcome": "failed", "reason": str(error)}
    return {"outcome": "finished"}


class _Work:
    """The steps of one trial."""

    def __init__(
        self, plan: SweepPlan, place: SweepPlace, trial: Trial, say: Say, stop_wanted: Callable[[bool], bool]
    ) -> None:
        self._plan, self._place, self._trial, self._say = plan, place, trial, say
        self._stop_wanted, self._folder = stop_wanted, place.folder_of(trial)
        self._config, self._run = plan.config(trial), open_child(plan, trial, place.parent)

    def run(self) -> None:
        """Train, measure and finish, as far as that is not done yet."""
        if intact(self._folder, _TRAINED_FILE, self._say) is None:
            self._train()
        with tracking.finishing(self._run):
            known = self._run.metrics()
            self._log_once({records.TRAIN_HOURS: training_hours(self._run)}, known)
            with tempfile.TemporaryDirectory(prefix="dpt-trial-") as scratch:
                store = CheckpointStore(self._folder, self._config.keep_checkpoints, self._say)
                self._measure(store.fetch(self._config.steps, Path(scratch)), known)
        finish_trial(self._folder, self._run)

    def _train(self) -> None:
        variant, _, seed = self._trial.path.rpartition("/")
        callbacks = []
        if self._plan.tune.early_stopping != "none":
            callbacks = [_tune_reports()]
        supervision = Supervision(self._run, self._stop_wanted, self._place.threads, callbacks)
        storage, plan = f"{self._place.folder}/{variant}", self._plan
        result = train(
            self._config, plan.data, seed, storage, resume=True, show=self._say, supervision=supervision
        )
        content = {"checkpoint": result.checkpoint, "model": result.model_uri}
        self._folder.write_text(_TRAINED_FILE, sealed(content))

    def _measure(self, checkpoint: Path, known: dict[str, float]) -> None:
        model, tune, config = dpt.load_model(checkpoint), self._plan.tune, self._config
        run, data = self._run, self._plan.data
        self._log_once({records.PARAMETERS: count_parameters(model)}, known)
        log_pictures(run, model, data, config.val_split, tune.pictures)
        if "resolution" in self._trial.variant.rows:
            sides = resolutions(min(config.crop_size), model.size_divisor, tune.sides)
            log_resolutions(run, checkpoint, data, config, sides, self._place.threads, known)

    def _log_once(self, metrics: dict[str, float], known: dict[str, float]) -> None:
        self._run.log_metrics({k: v for k, v in metrics.items() if k not in known}, self._config.steps)


def _tune_reports() -> Any:
    """A callback that reports every validation to Ray Tune, for its scheduler, and where the checkpoint is.

    Ray Tune refuses a report without the metric that it compares: of a checkpoint before any validation.
    """
    from ray.tune.integration.ray_train import TuneReportCallback

    class Reports(TuneReportCallback):
        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            if len(metrics[0]) > 1:  # not only the step
                super().after_report(run_context, metrics, checkpoint)

    return Reports()


def finish_trial(folder: Folder, run: tracking.Run, stopped_early: int | None = None) -> None:
    """Write the result of the trial of a `run` to its `folder`, which marks it as finished.

    `stopped_early` is the step at which the scheduler stopped it.
    """
    content = {"run_id": run.run_id, "stopped_early": stopped_early, "metrics": run.metrics()}
    folder.write_text(RESULT_FILE, sealed(content))


def is_finished(place: SweepPlace, trial: Trial) -> bool:
    """Whether a `trial` of the sweep at `place` is finished; not if its result is damaged."""
    return intact(place.folder_of(trial), RESULT_FILE) is not None
