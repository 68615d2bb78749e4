"""`dpt train`: shards → trained model, on Ray Train.

This is the driver: it opens the datasets, starts the MLflow run and hands both to the training processes
(`pipelines.training_loop`). A run lives in `<storage>/<name>`: `run.json` (what it is) and a folder a
checkpoint. Starting it again with `resume` goes on from the newest one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.storage import Folder
from pipelines import tracking
from pipelines.config import ConfigError, TrainConfig
from pipelines.progress import open_board, showing
from pipelines.ray_session import connect, cpus_per_worker, on_cluster, wants_gpu
from pipelines.training_loop import Setup, build_model, train_loop

RUN_FILE = "run.json"


class RunExists(UserError):
    """A run of that name exists and was not asked to be resumed, or does not fit what was asked for."""


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
    show: Callable[[str], None] = print,
) -> TrainResult:
    """Train a model and log it to MLflow.

    Args:
        data: prepared datasets, or folders full of them.
        name: of the run; its checkpoints go to `<storage>/<name>`.
        resume: go on with the run of that name.
        show: called with each line of progress.

    Raises:
        NotADataset, ConfigError, RunExists: before anything is started.
        ray.train.TrainingFailedError: if the training itself fails.
    """
    datasets = open_datasets(list(data))
    check_fits(config, datasets)
    connect()
    use_gpu = wants_gpu(config.device)
    if not use_gpu and on_cluster():
        show("no GPU in the cluster now: training on CPUs (device=cuda waits for one)")
    run = _find_or_start_run(config, datasets, Folder(storage) / name, name, resume)
    threads = 1 if use_gpu else cpus_per_worker(config.workers)
    setup = Setup(config.model_dump(), [d.folder.uri for d in datasets], run, use_gpu, threads)
    board = open_board()
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"setup": setup, "board": board},
        scaling_config=ScalingConfig(
            num_workers=config.workers, use_gpu=use_gpu, resources_per_worker=_resources(use_gpu, threads)
        ),
        # mypy takes the class of Ray Train V1, which Ray no longer uses.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=Folder(storage).uri,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    with tracking.finishing(run):
        with showing(board, show):
            checkpoint = trainer.fit().checkpoint
        assert checkpoint is not None, "the last step reports a checkpoint"
        with checkpoint.as_directory() as folder:
            model_uri = tracking.log_model(run, Path(folder))
    return TrainResult(run, checkpoint.path, model_uri)


def check_fits(config: TrainConfig, datasets: Sequence[PreparedDataset]) -> None:
    """Find out before anything is started whether model, data and config go together.

    Raises:
        ConfigError, NotADataset: naming what does not.
    """
    names = [dataset.name for dataset in datasets]
    if config.weights and set(config.weights) != set(names):
        raise ConfigError(f"weights: given for {sorted(config.weights)}, but the datasets are {names}")
    for dataset in datasets:
        dataset.manifest.split(config.train_split)
    with torch.device("meta"):
        model = build_model(config.model.model_copy(update={"pretrained": False}), config.crop)
    if config.crop % model.size_divisor:
        raise ConfigError(
            f"crop: {config.crop} is not divisible by {model.size_divisor}, as {config.model.name} needs"
        )


def _resources(use_gpu: bool, threads: int) -> dict[str, float]:
    return {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": threads}


def _find_or_start_run(
    config: TrainConfig, datasets: Sequence[PreparedDataset], folder: Folder, name: str, resume: bool
) -> tracking.Run:
    """Start the MLflow run of a new training run, or find that of an old one."""
    identity = {
        "config": json.loads(config.model_dump_json()),
        "manifests": {dataset.name: dataset.manifest.digest for dataset in datasets},
    }
    if folder.exists(RUN_FILE):
        known = json.loads(folder.read_text(RUN_FILE))
        if not resume:
            raise RunExists(
                f"run {name} exists in {folder.uri}: go on with it by --resume, or choose another --name"
            )
        if known["identity"] != identity:
            raise RunExists(f"run {name} was started differently: {_difference(known['identity'], identity)}")
        return tracking.Run(**known["run"])
    run = tracking.start_run(name, "train", config, datasets)
    folder.write_text(RUN_FILE, json.dumps({"identity": identity, "run": asdict(run)}, indent=1))
    return run


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
