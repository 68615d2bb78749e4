"""Connecting to Ray: the cluster of RAY_ADDRESS, or one that was started on this machine, else a local one.

Under `ray job submit` Ray sets RAY_ADDRESS for the entry point, so the same command that starts a local Ray
on a laptop runs on the cluster there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext

import ray

from pipelines.cluster.address import answers, require_answer
from pipelines.cluster.ray_private import (
    inside_submitted_job,
    job_without_working_directory,
    leaving_signals_alone,
    running_cluster,
    silence_pools_of_actors,
    starting_what_is_used,
)
from pipelines.config import ConfigError

ADDRESS = "RAY_ADDRESS"
"""Environment variable with a cluster's address. Only a job's driver has it, not its tasks and actors."""

_LOCAL_RAY = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Both watch for failures that only a cluster has, and log a line on every start of a run.
    "RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Seconds between the controller's looks at its workers: Ray's 2 s delay the start and the end of a run.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
}
"""Environment of a Ray that this process starts itself; a cluster has its own."""

TRACKING = "MLFLOW_TRACKING_URI"
TRACKING_VARIABLES = (
    TRACKING, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
)  # fmt: skip
"""Tracking server and credentials: training processes on any node log to it too."""

_STORAGE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


def connect() -> None:
    """Connect this process to Ray; idempotent.

    Raises:
        ConfigError: if RAY_ADDRESS names no cluster that answers, or one of another version.
    """
    if ray.is_initialized():
        return
    from ray.data import DataContext  # half a second, which those that need no Ray save

    # On a cluster's head node Ray finds the cluster without RAY_ADDRESS; what it finds may be long gone.
    if not on_cluster() and (found := running_cluster()) and answers(found):
        os.environ[ADDRESS] = found
    if not on_cluster():
        for name, value in _LOCAL_RAY.items():
            os.environ.setdefault(name, value)
    elif os.environ[ADDRESS] not in ("auto", "local"):
        require_answer(os.environ[ADDRESS])
    carried = carried_variables()
    address = None if on_cluster() else "local"
    environment = {"env_vars": carried} if carried else None
    try:
        # What workers print is Ray's noise, and goes to log files; progress and errors come by themselves.
        with leaving_signals_alone(), nullcontext() if on_cluster() else starting_what_is_used():
            ray.init(
                address,
                job_config=job_without_working_directory(),
                runtime_env=environment,
                logging_level=logging.ERROR,
                log_to_driver=on_cluster(),
            )
    except Exception as error:  # Ray raises that itself, of a node that does not start
        where = f"RAY_ADDRESS={os.environ[ADDRESS]}" if on_cluster() else "Ray cannot be started here"
        raise ConfigError(f"{where}: {' '.join(str(error).split()):.300}") from error
    DataContext.get_current().enable_progress_bars = False
    silence_pools_of_actors()
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def carried_variables() -> dict[str, str]:
    """Environment variables of storage and tracking for the workers of a cluster that this process joins.

    Storage credentials are not passed on, since nodes have their own; those of the tracking server are.
    Inside a submitted job the job's own environment reaches the workers already.
    """
    if not on_cluster() or inside_submitted_job():
        return {}
    names = (*_STORAGE_VARIABLES, *TRACKING_VARIABLES)
    return {name: os.environ[name] for name in names if name in os.environ}


def on_cluster() -> bool:
    """Whether Ray was running before this process."""
    return bool(os.environ.get(ADDRESS))


def wants_gpu(device: str) -> bool:
    """Whether a job with that `device` setting (`auto`, `cpu`, `cuda`) uses the cluster's GPUs.

    `cuda` is accepted on any cluster: one that scales down to zero has no GPU until one is requested.

    Raises:
        ConfigError: for `cuda` on a local Ray without GPU.
    """
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    if device == "cuda" and not has_gpu and not on_cluster():
        raise ConfigError("device: cuda is asked for, but this machine has no GPU")
    return device == "cuda" or (device == "auto" and has_gpu)


def cpus_per_worker(workers: int) -> int:
    """CPU cores for each of N equal `workers`: the most with which all of them fit on nodes; at least 1."""
    most = sum(_of_nodes("CPU")) // workers
    return next((cores for cores in range(most, 1, -1) if room_for_workers(cores) >= workers), 1)


def room_for_workers(cores: int, use_gpu: bool = False) -> int:
    """How many workers fit on the present nodes: with `cores` CPUs each, or a GPU and a CPU if `use_gpu`."""
    if use_gpu:
        return sum(min(gpus, cpus) for gpus, cpus in zip(_of_nodes("GPU"), _of_nodes("CPU"), strict=True))
    return sum(cpus // cores for cpus in _of_nodes("CPU"))


def require_room(workers: int, cores: int, use_gpu: bool, show: Callable[[str], None] = print) -> None:
    """Refuse more workers than fit on a local Ray; of a cluster, which may grow, report that they wait.

    `workers` is the job's minimum number; each has a GPU if `use_gpu`, else `cores` CPU cores. `show` takes
    that report, one line.

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
    """Amount of a resource on every living node."""
    return [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]]
