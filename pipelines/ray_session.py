"""Connecting to Ray: the cluster that a job was submitted to, else a local one.

Under `ray job submit` Ray sets RAY_ADDRESS for the entry point, so the same command that starts a local Ray
on a laptop runs on the cluster there.
"""

from __future__ import annotations

import logging
import os

import ray
import ray.data

from pipelines.config import ConfigError

_LOCAL_RAY = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Both watch for what only a cluster has, and say so on every start of a run.
    "RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Environment of a Ray that this process starts itself; a cluster has its own."""


_STORAGE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


def connect() -> None:
    """Make sure that this process is connected to Ray; does nothing if it is."""
    if ray.is_initialized():
        return
    if not on_cluster():
        for name, value in _LOCAL_RAY.items():
            os.environ.setdefault(name, value)
    storage = storage_variables()
    ray.init(logging_level=logging.ERROR, runtime_env={"env_vars": storage} if storage else None)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def storage_variables() -> dict[str, str]:
    """Where object storage is, for the workers of a cluster that was started without knowing.

    Credentials are not passed on: a job's environment is no place for secrets, and nodes have their own.
    Inside a submitted job the job's own environment reaches the workers already.
    """
    if not on_cluster() or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {name: os.environ[name] for name in _STORAGE_VARIABLES if name in os.environ}


def on_cluster() -> bool:
    """Whether an address of a running Ray is given."""
    return bool(os.environ.get("RAY_ADDRESS"))


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
    """CPU cores for each of so many equal workers, such that each fits on some node; at least 1."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return max(1, min(max(cores), sum(cores) // workers))
