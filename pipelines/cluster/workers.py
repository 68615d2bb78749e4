"""A model on many workers: Ray tasks that each hold it on a device and take a share of the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayTaskError
from safetensors.torch import load, save

import dpt
from datasets_prep.errors import UserError
from dpt.config import ModelConfig
from pipelines.cluster.device import resolve_device
from pipelines.cluster.ray_private import running_cluster
from pipelines.cluster.session import connect, cpus_per_worker, on_cluster, wants_gpu

Part = TypeVar("Part")

Job = Callable[[Any, int, int], Part]
"""Called in a worker: model for inference, or None, its rank, the number of workers → partial result."""


def on_workers(
    job: Job[Part],
    model: dpt.DPT | None,
    workers: int,
    device: str,
    threads: int | None = None,
    exact: bool = False,
) -> list[Part]:
    """Run a job on N workers; if it is one, on a machine without Ray, in this process.

    Args:
        job: called once in each worker; can be pickled.
        model: on any device; None for a job without one. It travels through Ray's object store: workers do
            not see the driver's disk.
        workers: their number, N.
        device: `auto`, `cpu` or `cuda`; with GPUs each worker has one.
        threads: CPU cores of each worker without GPU; None for 1/N of all.
        exact: of `dpt.FastDPT`.

    Returns:
        The partial results, by rank.

    Raises:
        UserError: that a worker raised.
    """
    if workers == 1 and not (ray.is_initialized() or on_cluster() or running_cluster()):
        if threads:
            torch.set_num_threads(threads)
        fast = dpt.FastDPT(model, resolve_device(device), exact=exact) if model else None
        return [job(fast, 0, 1)]
    connect()
    use_gpu = wants_gpu(device)
    threads = 1 if use_gpu else threads or cpus_per_worker(workers)
    shipped = ray.put(None if model is None else _packed(model))
    # On any node: a trial of Ray Tune would confine its tasks to its own placement group, which is empty.
    task: Any = _on_worker.options(
        num_cpus=threads, num_gpus=1 if use_gpu else 0, scheduling_strategy="DEFAULT"
    )
    try:
        return ray.get(
            [task.remote(job, shipped, rank, workers, use_gpu, threads, exact) for rank in range(workers)]
        )
    except RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, UserError) else error from None


def _packed(model: dpt.DPT) -> tuple[dict[str, Any], bytes]:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return model.config.to_dict(), save(weights)


@ray.remote
def _on_worker(
    job: Job[Part],
    shipped: tuple[dict[str, Any], bytes] | None,
    rank: int,
    workers: int,
    use_gpu: bool,
    threads: int,
    exact: bool,
) -> Part:
    if not use_gpu:
        torch.set_num_threads(threads)
    if shipped is None:
        return job(None, rank, workers)
    config, weights = shipped
    model = dpt.DPT(ModelConfig.from_dict(config))
    model.load_state_dict(load(weights))
    return job(dpt.FastDPT(model, "cuda" if use_gpu else "cpu", exact=exact), rank, workers)
