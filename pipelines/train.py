"""`dpt train`: shards → trained model, on Ray Train.

This is the driver: it opens the datasets, starts the MLflow run and passes both to the training processes
(`pipelines.training.loop`). A run lives in `<storage>/<name>`: `run.json` (its identity and MLflow run) and a
folder per checkpoint. Starting it again with `resume` continues from the newest intact one.
"""

from __future__ import annotations

import json
import os
import pickle
import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import owning
from datasets_prep.storage.sealed import DamagedFile, sealed, unsealed
from pipelines.cluster.actors import saying_which_actors_died
from pipelines.cluster.deaths import SayingWhatDied, any_died, what_died
from pipelines.cluster.ray_private import checkpoint_snapshot, leave_sigint_alone, without_idle_actors
from pipelines.cluster.session import connect, cpus_per_worker, on_cluster, require_room, wants_gpu
from pipelines.config import ConfigError, TrainConfig
from pipelines.config_files import to_yaml
from pipelines.sampling.plan import PLAN_VERSION
from pipelines.tasks.registry import task_of
from pipelines.tasks.selection import training_datasets
from pipelines.tracking import runs as tracking
from pipelines.tracking.model_reference import model_files
from pipelines.tracking.registry import note_protocol
from pipelines.training.board import Supervision, open_board, showing, stopping_on_signals, stopping_when
from pipelines.training.checkpoint_store import CheckpointStore, checkpoint_name
from pipelines.training.entry import JoiningByThemselves, train_loop
from pipelines.training.loop import Setup
from pipelines.training.stages import run_stages
from pipelines.training.start import initial_model, model_without_weights, save_initial_model

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
"""The resolved config of a run's last start, for people; MLflow has that of the first as `train.yaml`."""

_FREE_KEYS = {
    "workers", "parallel", "compile", "channels_last", "activation_checkpointing", "device", "loader_workers",
    "executor", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "max_failures",
    "max_skipped", "hang_minutes",
}  # fmt: skip
"""Settings that may change when a run is resumed: up to rounding, its curve does not depend on them."""

_START_SECONDS = 1800
"""Timeout for a cluster's machines to start; clouds can be short of GPUs."""


class RunExists(UserError):
    """A run of that name exists and `resume` is not set, or it was started with other settings or data."""


class TrainingFailed(UserError):
    """A run that ended before its last step; the message says why, and it can be resumed."""


class TrainingStopped(TrainingFailed):
    """A run that was asked to stop; it has saved a checkpoint, unless it had just started."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run: its MLflow `run`, the URI of its last `checkpoint`, and `model_uri`, that in MLflow."""

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
    tags: Mapping[str, str] = MappingProxyType({}),
) -> TrainResult:
    """Train a model and log it to MLflow.

    Args:
        config: how.
        data: prepared datasets, or folders of them, of which those are taken that fit the task.
        name: of the run; its checkpoints go to `<storage>/<name>`.
        storage: folder of runs, a path or URI.
        resume: continue the run of that name, if there is one.
        allow_changes: even if config or data are not what the run was started with.
        show: called with each line of progress.
        supervision: of the sweep that the run belongs to, if any.
        tags: further ones of a run that is started.

    Raises:
        NotADataset, ConfigError, RunExists, NotFound, BadModel: before anything is started.
        Owned: if another process trains it.
        TrainingStopped: after a signal; `resume` continues the run.
        TrainingFailed: if it ends early for a reason that a restart would not fix.
    """
    require_name(name)
    left_out: list[str] = []  # said when all is checked: a config is shown before the first line
    datasets, folder = training_datasets(config, data, left_out.append), Folder(storage) / name
    model = initial_model(config.model, folder)
    check_fits(config, datasets, model)
    # A sweep owns its trials' folders.
    with nullcontext() if supervision else owning(folder, f"run {name}", show):
        for line in left_out:
            show(line)
        return _train(config, datasets, model, name, folder, resume, allow_changes, show, supervision, tags)


def require_name(name: str) -> None:
    """Raise ConfigError if `name`, of a run or sweep, cannot be that of its folder."""
    if not name.isprintable() or "/" in name or name.strip() in ("", ".", ".."):
        raise ConfigError(f"--name: expected the name of a folder, printable, got {name!r}")


def _train(
    config: TrainConfig,
    datasets: Sequence[PreparedDataset],
    model: dpt.DPT | None,
    name: str,
    folder: Folder,
    resume: bool,
    allow_changes: bool,
    show: Callable[[str], None],
    supervision: Supervision | None,
    tags: Mapping[str, str],
) -> TrainResult:
    """As `train`, in the run's own `folder`, starting from a trained `model` if one is given."""
    connect()
    use_gpu = wants_gpu(config.device)
    if not use_gpu and on_cluster():
        show("no GPU in the cluster now: training on CPUs (device=cuda waits for one)")
    threads = supervision.threads if supervision else cpus_per_worker(config.most_workers)
    threads = 1 if use_gpu else threads
    require_room(config.fewest_workers, threads, use_gpu, show)
    identity = identity_of(config, datasets)
    run = _resumed_run(folder, name, identity, resume, allow_changes, show)
    began = "new" if run is None else "resumed"  # --resume of a mistyped name is a new run
    if run is None:
        run = supervision.run if supervision else tracking.start_run(name, "train", config, datasets, tags)
    with tracking.finishing(run, killed_by=TrainingStopped):
        if not folder.exists(RUN_FILE):
            conditions = task_of(config).conditions
            note_protocol(run, {d.name: conditions for d in datasets if conditions}, [])
            _record(folder, identity, run)
        folder.write_text(CONFIG_FILE, to_yaml(config))
        start = save_initial_model(config, model, datasets, folder, show)
        uris = [dataset.folder.uri for dataset in datasets]
        setup = Setup(config, uris, folder.uri, run, identity, start, use_gpu, threads)
        if supervision is None:
            steps = f"{config.steps} steps of {config.batch_size} images; a line every {config.log_every}"
            show(f"{began} run {name}: {steps}")
        _fit(setup, name, show, supervision)
        store = CheckpointStore(folder, config.keep_checkpoints, show)
        state = store.newest()
        if state is None:
            raise TrainingFailed(f"no checkpoint in {folder.uri}")
        checkpoint = (folder / checkpoint_name(state.step)).uri
        with model_files(checkpoint) as model_folder:
            return TrainResult(run, checkpoint, tracking.log_model(run, model_folder))


def _fit(setup: Setup, name: str, show: Callable[[str], None], supervision: Supervision | None) -> None:
    """Run the training processes of the run `name` until they end."""
    config = setup.config
    if isinstance(config.workers, int):
        # After a minute Ray retries with another number of workers. If the number is fixed, that would only
        # print a traceback a minute while a cluster starts its machines.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_SECONDS))
    Folder(setup.folder).remove(checkpoint_snapshot())  # which checkpoints there are is known better here
    # A rank that is stopped cannot end itself as its own watchdog would.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(60 * config.hang_minutes)
    board = open_board()
    callbacks: list[Any] = [SayingWhatDied(board), *(supervision.callbacks if supervision else ())]
    trainer = DataParallelTrainer(
        train_loop,
        train_loop_config={"setup": pickle.dumps(setup), "board": board},
        backend_config=JoiningByThemselves(),
        scaling_config=ScalingConfig(
            num_workers=config.workers,  # type: ignore[arg-type] # Ray Train V2 takes a range too
            use_gpu=setup.use_gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if setup.use_gpu else {"CPU": setup.threads},
        ),
        # mypy takes the class of Ray Train V1, which Ray no longer uses.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=posixpath.basename(setup.folder),
            storage_path=posixpath.dirname(setup.folder),
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=callbacks,
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    leave_sigint_alone(trainer)
    without_idle_actors(trainer, autoscales=on_cluster())
    stopping = (
        stopping_when(board, supervision.stop_wanted) if supervision else stopping_on_signals(board, show)
    )
    deaths = nullcontext() if supervision else saying_which_actors_died(show)  # a sweep says them all
    with showing(board, show), deaths, stopping as stopped:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            # Of what ranks raised, a `UserError` is enough; other errors need their traceback.
            failures = getattr(error, "worker_failures", {})
            causes = [getattr(failure, "cause", failure) for failure in failures.values()]
            known = next((cause for cause in causes if isinstance(cause, UserError)), None)
            if known is None and not any_died(failures):
                raise
            raise TrainingFailed(
                str(known or f"run {name}: {what_died(failures)}, once too often; --resume continues it")
            ) from error
        except (OutOfMemoryError, ActorDiedError) as error:  # Ray Train's controller died, not a rank
            reason = str(error).strip().partition("\n")[0]
            raise TrainingFailed(f"run {name}: Ray failed: {reason}; --resume continues it") from error
    failure = ray.get(board.failure.remote())
    if failure:
        raise TrainingFailed(failure)
    if stopped:
        raise TrainingStopped(
            f"run {name} was asked to stop; --resume continues it from its newest checkpoint"
        )


def identity_of(config: TrainConfig, datasets: Sequence[PreparedDataset]) -> dict[str, Any]:
    """What decides a run's curve: those settings of `config`, the `datasets`' digests, the plan's version."""
    settings = json.loads(config.model_dump_json(exclude=_FREE_KEYS))
    manifests = {dataset.name: dataset.manifest.digest for dataset in datasets}
    return {"config": settings, "manifests": manifests, "plan": PLAN_VERSION}


def check_fits(
    config: TrainConfig, datasets: Sequence[PreparedDataset], model: dpt.DPT | None = None
) -> None:
    """Check before anything is started that `config`, training `datasets` and model fit together.

    `model` is the trained one that the run starts from; None for a new one of the config.

    Raises:
        ConfigError, NotADataset: naming what does not fit.
    """
    for dataset in datasets:
        dataset.manifest.split(config.train_split)
    run_stages(config, datasets)
    if model is None:
        model = model_without_weights(config)
    name = config.model.start or config.model.name
    divisor, patch = model.size_divisor, model.backbone.patch_size
    if any(side % divisor for side in config.crop_size):
        raise ConfigError(f"crop: {config.crop} is not divisible by {divisor}, as {name} needs")
    if config.half_size_share and any(side // 2 % patch for side in config.crop_size):
        half = f"half of crop {config.crop}"
        raise ConfigError(f"half_size_share: {half} is not divisible by {patch}, the patch size of {name}")
    task_of(config).check(model, datasets)


def _resumed_run(
    folder: Folder,
    name: str,
    identity: dict[str, Any],
    resume: bool,
    allow_changes: bool,
    show: Callable[[str], None],
) -> tracking.Run | None:
    """The MLflow run, reopened, of the training run in a folder; None if there is none yet.

    Raises:
        RunExists: if it is not to be resumed, or its identity differs and changes are not allowed.
    """
    known = _known_run(folder, show)
    if known is None:
        return None
    if not resume:
        raise RunExists(
            f"run {name} exists in {folder.uri}: continue it with --resume, or choose another --name"
        )
    difference = _difference(known["identity"], identity)
    if difference and not allow_changes:
        raise RunExists(
            f"run {name} was started differently: {difference} (--allow-changes continues anyway)"
        )
    run = tracking.Run.of_record(known["run"])
    try:
        run.reopen()
    except tracking.TrackingError as error:  # training does not need MLflow
        show(f"{error}; its metrics are kept and sent later")
    if difference:
        show(f"continuing with changes: {difference}")
        run.log_change(difference)
        _record(folder, identity, run)
    return run


def _known_run(folder: Folder, show: Callable[[str], None]) -> dict[str, Any] | None:
    """Identity and MLflow run of the training run in a folder; None if there is none yet.

    Raises:
        RunExists: if its record is damaged, and no checkpoint has another.
    """
    damage: DamagedFile | None = None
    if folder.exists(RUN_FILE):
        try:
            return unsealed(folder.read_bytes(RUN_FILE), f"{folder.uri}/{RUN_FILE}")
        except DamagedFile as error:
            damage = error
    if state := CheckpointStore(folder, 1, show).newest():
        return {"identity": state.identity, "run": state.run}
    if damage:
        raise RunExists(f"{damage}, and there is no checkpoint: choose another --name, or remove it")
    return None


def _record(folder: Folder, identity: dict[str, Any], run: tracking.Run) -> None:
    folder.write_text(RUN_FILE, sealed({"identity": identity, "run": run.record()}))


def _difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """Where two nested dicts differ, as `key: old → new`."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = _difference(before, after, f"{prefix}{key}.")
            lines += [inner] if inner else []
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} → {after!r}")
    return ", ".join(lines)
