"""`dpt train`: shards → trained model, on Ray Train.

This is the driver: it opens the datasets, starts the MLflow run and hands both to the training processes
(`pipelines.training.loop`). A run lives in `<storage>/<name>`: `run.json` (what it is) and a folder a
checkpoint. Starting it again with `resume` goes on from the newest whole one.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from pipelines.cluster.session import connect, cpus_per_worker, on_cluster, require_room, wants_gpu
from pipelines.config import ConfigError, TrainConfig
from pipelines.sampling.plan import PLAN_VERSION
from pipelines.tasks.registry import task_of
from pipelines.tracking import runs as tracking
from pipelines.training.board import Supervision, open_board, showing, stopping_when
from pipelines.training.checkpoint_store import CheckpointStore, checkpoint_name
from pipelines.training.loop import Setup, train_loop
from pipelines.training.stages import run_stages
from pipelines.training.start import build_model, keep, trained_model

RUN_FILE = "run.json"

_FREE_KEYS = {
    "workers", "parallel", "compile", "channels_last", "activation_checkpointing", "device", "loader_workers",
    "executor", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "max_failures",
    "max_skipped", "hang_minutes",
}  # fmt: skip
"""Settings that change where, how fast and how watched a run is, but (up to rounding) not its curve."""

_START_SECONDS = 1800
"""How long machines may take to be there; clouds can be short of GPUs."""


class RunExists(UserError):
    """A run of that name exists and was not asked to be resumed, or does not fit what was asked for."""


class TrainingFailed(UserError):
    """A run that ended before its last step; the message says why, and it can be resumed."""


class TrainingStopped(TrainingFailed):
    """A run that was asked to stop, and has saved where it is."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run: its MLflow address, its last checkpoint and its logged model."""

    run: tracking.Run
    checkpoint: str
    model_uri: str


def train(
    config: TrainConfig,
    data: Sequence[str],
    name: str,
    storage: str,
    resume: bool = False,
    allow_changes: bool = False,
    show: Callable[[str], None] = print,
    supervision: Supervision | None = None,
) -> TrainResult:
    """Train a model and log it to MLflow.

    Args:
        data: prepared datasets, or folders full of them.
        name: of the run; its checkpoints go to `<storage>/<name>`.
        resume: go on with the run of that name.
        allow_changes: even if config or data are not what the run was started with.
        show: called with each line of progress.

    Raises:
        NotADataset, ConfigError, RunExists, NotFound, BadModel: before anything is started.
        TrainingStopped: after SIGTERM; the run has saved where it is.
        TrainingFailed: if it ends early for a reason that a restart does not mend.
    """
    datasets, folder = open_datasets(list(data)), Folder(storage) / name
    trained = trained_model(config.model, folder)
    check_fits(config, datasets, trained)
    connect()
    use_gpu = wants_gpu(config.device)
    if not use_gpu and on_cluster():
        show("no GPU in the cluster now: training on CPUs (device=cuda waits for one)")
    threads = supervision.threads if supervision else cpus_per_worker(config.most_workers)
    threads = 1 if use_gpu else threads
    require_room(config.fewest_workers, threads, use_gpu, show)
    identity = identity_of(config, datasets)
    given = supervision.run if supervision else None
    run = _find_or_start_run(config, datasets, folder, name, identity, resume, allow_changes, show, given)
    uris = [d.folder.uri for d in datasets]
    with tracking.finishing(run, killed_by=TrainingStopped):
        start = keep(config, task_of(config), trained, datasets, folder, show)
        setup = Setup(config.model_dump(), uris, folder.uri, run, identity, start, use_gpu, threads)
        _fit(config, setup, name, Folder(storage).uri, show, supervision)
        return _log_result(config, folder, run, show)


def _fit(
    config: TrainConfig,
    setup: Setup,
    name: str,
    storage: str,
    show: Callable[[str], None],
    supervision: Supervision | None,
) -> None:
    """Run the training processes to their end."""
    if isinstance(config.workers, int):
        # Ray tries another number of workers after a minute; where there is only one, that is a traceback a
        # minute while a cluster starts its machines.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_SECONDS))
    board = open_board()
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"setup": setup, "board": board},
        torch_config=TorchConfig(timeout_s=round(60 * config.hang_minutes)),
        scaling_config=ScalingConfig(
            num_workers=config.workers,  # type: ignore[arg-type] # Ray Train V2 takes a range too
            use_gpu=setup.use_gpu,
            resources_per_worker=_resources(setup.use_gpu, setup.threads),
        ),
        # mypy takes the class of Ray Train V1, which Ray no longer uses.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=list(supervision.callbacks) if supervision else None,
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    stopping = stopping_when(board, supervision.stop_wanted) if supervision else stopping_on_sigterm(board)
    with showing(board, show), stopping as stopped:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            known = _user_error(error)
            if known is None:
                raise
            raise TrainingFailed(str(known)) from error
    failure = ray.get(board.failure.remote())
    if failure:
        raise TrainingFailed(failure)
    if stopped:
        raise TrainingStopped(f"run {name} was told to stop and has saved where it is; --resume goes on")


@contextmanager
def stopping_on_sigterm(board: Any) -> Iterator[list[int]]:
    """Turn SIGTERM (`ray job stop`, a scheduler's notice) into a wish that the ranks end at the next step.

    Yields:
        a list that holds the signal once it came.
    """
    came: list[int] = []

    def stop(number: int, frame: Any) -> None:
        came.append(number)
        board.request_stop.remote()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _user_error(error: TrainingFailedError) -> UserError | None:
    """A rank's own error, if it is one that a user can mend; any other needs its traceback."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = (getattr(failure, "cause", failure) for failure in failures)
    return next((cause for cause in causes if isinstance(cause, UserError)), None)


def _log_result(
    config: TrainConfig, folder: Folder, run: tracking.Run, show: Callable[[str], None]
) -> TrainResult:
    """Log the last checkpoint's model to MLflow."""
    store = CheckpointStore(folder, config.keep_checkpoints, show)
    state = store.newest()
    if state is None:
        raise TrainingFailed(f"no checkpoint in {folder.uri}")
    with tempfile.TemporaryDirectory(prefix="dpt-model-") as scratch:
        model_uri = tracking.log_model(run, store.fetch(state.step, Path(scratch)))
    return TrainResult(run, (folder / checkpoint_name(state.step)).uri, model_uri)


def identity_of(config: TrainConfig, datasets: Sequence[PreparedDataset]) -> dict[str, Any]:
    """What decides a run's curve: the settings that do, the digests of the data, the version of the plan."""
    settings = json.loads(config.model_dump_json(exclude=_FREE_KEYS))
    # As it was written when there was one task, and no start but from the beginning: such runs can go on.
    if config.task == "depth":
        del settings["task"]
    if config.task != "metric_depth":
        del settings["metric_depth"]
    if config.task != "segmentation":
        del settings["segmentation"]
    if config.model.start is None:
        del settings["model"]["start"]
    manifests = {dataset.name: dataset.manifest.digest for dataset in datasets}
    return {"config": settings, "manifests": manifests, "plan": PLAN_VERSION}


def check_fits(
    config: TrainConfig, datasets: Sequence[PreparedDataset], trained: dpt.DPT | None = None
) -> None:
    """Find out before anything is started whether model, data and config go together.

    Args:
        trained: the model that the run starts from, if that has been trained.

    Raises:
        ConfigError, NotADataset: naming what does not.
    """
    for dataset in datasets:
        dataset.manifest.split(config.train_split)
    run_stages(config, datasets)
    model = trained or _untrained_shell(config)
    if any(side % model.size_divisor for side in config.crop_size):
        name = config.model.start or config.model.name
        raise ConfigError(f"crop: {config.crop} is not divisible by {model.size_divisor}, as {name} needs")
    task_of(config).check(model, datasets)


def _untrained_shell(config: TrainConfig) -> dpt.DPT:
    """The config's network without memory for its weights."""
    with torch.device("meta"):
        return build_model(config.model.model_copy(update={"pretrained": False}), config.crop_size)


def _resources(use_gpu: bool, threads: int) -> dict[str, float]:
    return {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": threads}


def _find_or_start_run(
    config: TrainConfig,
    datasets: Sequence[PreparedDataset],
    folder: Folder,
    name: str,
    identity: dict[str, Any],
    resume: bool,
    allow_changes: bool,
    show: Callable[[str], None],
    given: tracking.Run | None,
) -> tracking.Run:
    """Start the MLflow run of a new training run, unless one is given, or find that of an old one."""
    known = _known_run(folder, show)
    if known is None:
        run = given or tracking.start_run(name, "train", config, datasets)
    elif not resume:
        raise RunExists(
            f"run {name} exists in {folder.uri}: go on with it by --resume, or choose another --name"
        )
    else:
        difference = _difference(known["identity"], identity)
        if difference and not allow_changes:
            raise RunExists(
                f"run {name} was started differently: {difference} (--allow-changes goes on all the same)"
            )
        run = tracking.Run(**known["run"])
        _reopen(run, show)
        if not difference:
            return run
        show(f"going on with changes: {difference}")
        run.log_change(difference)
    folder.write_text(RUN_FILE, json.dumps({"identity": identity, "run": asdict(run)}, indent=1))
    return run


def _known_run(folder: Folder, show: Callable[[str], None]) -> dict[str, Any] | None:
    """What a run was started with and its MLflow run; should `run.json` be lost, its checkpoints know."""
    if folder.exists(RUN_FILE):
        known: dict[str, Any] = json.loads(folder.read_text(RUN_FILE))
        return known
    state = CheckpointStore(folder, 1, show).newest()
    return None if state is None else {"identity": state.identity, "run": state.run}


def _reopen(run: tracking.Run, show: Callable[[str], None]) -> None:
    """Mark a run as running again; training does not need MLflow for that."""
    try:
        run.reopen()
    except tracking.TrackingError as error:
        show(f"{error}; its metrics are kept and sent later")


def _difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """What two nested dicts disagree on, as `key: old → new`."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = _difference(before, after, f"{prefix}{key}.")
            lines += [inner] if inner else []
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} → {after!r}")
    return ", ".join(lines)
