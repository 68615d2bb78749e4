"""Connecting to Ray: the cluster of RAY_ADDRESS, or one that was started on this machine, else a local one.

Under `ray job submit` Ray sets RAY_ADDRESS for the entry point, so the same command that starts a local Ray
on a laptop runs on the cluster there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import ray
import ray.data
import torch
from ray._private.services import canonicalize_bootstrap_address

from pipelines.config import ConfigError

ADDRESS = "RAY_ADDRESS"
"""The variable with a cluster's address. Only a job's own process has it: tasks and actors have not."""

_LOCAL_RAY = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Both watch for what only a cluster has, and say so on every start of a run.
    "RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Environment of a Ray that this process starts itself; a cluster has its own."""


TRACKING = "MLFLOW_TRACKING_URI"
TRACKING_VARIABLES = (
    TRACKING, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
)  # fmt: skip
"""Where runs are tracked, and as whom: training processes log too, wherever they are."""

_STORAGE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


def connect() -> None:
    """Make sure that this process is connected to Ray; does nothing if it is."""
    if ray.is_initialized():
        return
    # On a cluster's head Ray finds it without being told.
    if not on_cluster() and (found := canonicalize_bootstrap_address(None)):  # type: ignore[arg-type]
        os.environ[ADDRESS] = found
    if not on_cluster():
        for name, value in _LOCAL_RAY.items():
            os.environ.setdefault(name, value)
    carried = carried_variables()
    ray.init(logging_level=logging.ERROR, runtime_env={"env_vars": carried} if carried else None)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def carried_variables() -> dict[str, str]:
    """Where storage and tracking are, for the workers of a cluster that was started without knowing.

    Keys to storage are not passed on, for nodes have their own; to a tracking server they have none.
    Inside a submitted job the job's own environment reaches the workers already.
    """
    if not on_cluster() or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    names = (*_STORAGE_VARIABLES, *TRACKING_VARIABLES)
    return {name: os.environ[name] for name in names if name in os.environ}


def on_cluster() -> bool:
    """Whether Ray was running before this process."""
    return bool(os.environ.get(ADDRESS))


def wants_gpu(device: str) -> bool:
    """Whether a job with that `device` setting (`auto`, `cpu`, `cuda`) uses the cluster's GPUs.

    `cuda` on a cluster is believed: one that scales down to zero has no GPU until it is asked for one.

    Raises:
        ConfigError: if GPUs are demanded of a local Ray that has none.
    """
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    if device == "cuda" and not has_gpu and not on_cluster():
        raise ConfigError("device: cuda is asked for, but this machine has no GPU")
    return device == "cuda" or (device == "auto" and has_gpu)


def cpus_per_worker(workers: int) -> int:
    """CPU cores for each of so many equal workers: the most with which all find room on nodes; at least 1."""
    most = sum(_of_nodes("CPU")) // workers
    return next((cores for cores in range(most, 1, -1) if room_for_workers(cores) >= workers), 1)


def room_for_workers(cores: int, use_gpu: bool = False) -> int:
    """How many workers find room on the nodes that are there, with a GPU and a core each or so many cores."""
    if use_gpu:
        return sum(min(gpus, cpus) for gpus, cpus in zip(_of_nodes("GPU"), _of_nodes("CPU"), strict=True))
    return sum(cpus // cores for cpus in _of_nodes("CPU"))


def require_room(workers: int, cores: int, use_gpu: bool, show: Callable[[str], None] = print) -> None:
    """Refuse more workers than a local Ray has room for; where a cluster may yet grow, say that they wait.

    Args:
        workers: the fewest that a job can do with.
        cores: of each without GPU.
        show: called with that line.

    Raises:
        ConfigError: if they would wait for ever.
    """
    room = room_for_workers(cores, use_gpu)
    if workers <= room:
        return
    kind = "GPUs" if use_gpu else "CPU cores"
    if not on_cluster():
        raise ConfigError(f"workers: {workers} are asked for, but this machine has {kind} for {room}")
    show(f"the cluster has {kind} for {room} of {workers} workers now: waiting until it has more")


def _of_nodes(resource: str) -> list[int]:
    """What every living node has of a resource."""
    return [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]]


def resolve_device(device: str) -> torch.device:
    """`auto`, `cpu` or `cuda` → the device to use on this machine.

    Raises:
        ConfigError: if a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but this machine has no GPU that PyTorch can use")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
