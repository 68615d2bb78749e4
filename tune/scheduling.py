"""How many trials run at once, such that the cluster is full and no trial waits for another for ever.

A trial's driver holds no CPU and no GPU: it takes a sliver of the head node's own resource, where it outlives
any worker node. Only its training processes hold something, all of them or, as a placement group, none. So
whatever is asked for, some trial can always go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import ray

from pipelines.cluster.session import cpus_per_worker, room_for_workers

DRIVER_RESOURCES = {"node:__internal_head__": 0.001}
"""Of a trial's driver; a thousand may run."""


@dataclass(frozen=True)
class Placement:
    """How trials share the cluster.

    Attributes:
        trials: that train at once.
        threads: CPU cores of each training process that has no GPU.
        drivers: trials that are begun. Where the trainings fill the cluster this is one more: it has started
            all that needs nothing of its own, and trains as soon as another has ended.
    """

    trials: int
    threads: int
    drivers: int


def place_trials(wanted: int | None, workers: int, use_gpu: bool) -> Placement:
    """Divide the cluster that Ray is connected to among trials.

    Args:
        wanted: trials at once; None for as many as fit.
        workers: training processes of each.
    """
    if use_gpu:
        fit = int(ray.cluster_resources().get("GPU", 0)) // workers
        # More than fit are what makes a cluster grow.
        return _placement(wanted or max(1, fit), 1, fit)
    threads = cpus_per_worker(workers * (wanted or 1))
    fit = max(1, room_for_workers(threads) // workers)
    return _placement(min(fit, wanted or fit), threads, fit)


def _placement(trials: int, threads: int, fit: int) -> Placement:
    return Placement(trials, threads, trials + 1 if trials == fit else trials)
