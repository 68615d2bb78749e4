"""Scheduling of trials: how many run at once, early stopping (ASHA), resources of dead trials.

Placement: a trial's driver holds no CPU and no GPU, only a sliver of the head node's own resource, since the
head outlives any worker node. What a trial holds are its training processes, which get all of their resources
or, as one placement group, none. So at any concurrency some trial can always continue, and none deadlocks.

Early stopping: ASHA ends trials that are worse than most were at their age (Li et al., MLSys 2020).

Orphans: when a training's controller dies, Ray Train removes the placement group of its processes, but only
if these had started (its `PlacementGroupCleaner` does not know of others). A group that was still pending
would be given the next free cores and hold them, unused, for the rest of the sweep: no other trial could
train.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.util.placement_group import remove_placement_group

from pipelines.cluster.polling import polling
from pipelines.cluster.ray_private import HEAD_NODE_RESOURCE, orphaned_placement_groups
from pipelines.cluster.session import cpus_per_worker, room_for_workers
from tune.plan import SweepPlan
from tune.runs import mark_stopped_early, open_child
from tune.trial import SweepPlace, finish_trial, is_finished

# ---- placement

DRIVER_RESOURCES = {HEAD_NODE_RESOURCE: 0.001}
"""Of a trial's driver; a thousand may run."""


@dataclass(frozen=True)
class Placement:
    """How trials share the cluster: `trials` train at once, with `threads` CPU cores a process without GPU.

    `drivers` trials are started. Where the trainings fill the cluster it is one more than `trials`: the extra
    one has done all that needs no resources, and trains once another has ended.
    """

    trials: int
    threads: int
    drivers: int


def place_trials(wanted: int | None, workers: int, use_gpu: bool) -> Placement:
    """Divide the cluster that Ray is connected to among trials.

    Each has `workers` training processes, each of them with a GPU if `use_gpu`. `wanted` is the number of
    trials at once; None for as many as fit.
    """
    if use_gpu:
        fit, threads = int(ray.cluster_resources().get("GPU", 0)) // workers, 1
        trials = wanted or max(1, fit)  # requests for more than fit are what makes a cluster grow
    else:
        threads = cpus_per_worker(workers * (wanted or 1))
        fit = max(1, room_for_workers(threads) // workers)
        trials = min(fit, wanted or fit)
    return Placement(trials, threads, trials + 1 if trials == fit else trials)


# ---- early stopping


def scheduler(plan: SweepPlan) -> TrialScheduler:
    """What decides, validation by validation, which trials of a `plan` continue."""
    if plan.tune.early_stopping == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="step",
        metric="abs_rel",
        mode="min",
        # One more than there are: at its last step a trial is not stopped, but measured.
        max_t=plan.train.steps + 1,
        grace_period=min(plan.tune.grace, plan.train.steps),
        reduction_factor=plan.tune.reduction,
    )


class EarlyStopping(Callback):
    """Marks the trials that the scheduler stopped as finished, so that they are not run again.

    The sweep is that of a `plan`, at a `place`.
    """

    def __init__(self, plan: SweepPlan, place: SweepPlace) -> None:
        self._plan, self._place = plan, place

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `ray.tune.Callback.on_trial_complete`: called when a trial has ended without an error."""
        result = trial.last_result or {}
        ours = self._plan.trials[trial.config["trial"]]
        if "outcome" in result or "step" not in result or is_finished(self._place, ours):
            return
        run = open_child(self._plan, ours, self._place.parent)
        mark_stopped_early(run, result["step"])
        finish_trial(self._place.folder_of(ours), run, stopped_early=result["step"])


# ---- orphans


@contextmanager
def removing_orphans(seconds: float = 5.0) -> Iterator[None]:
    """Inside the block, remove the orphaned placement groups of this job, every few `seconds`."""

    def remove() -> None:
        for group in orphaned_placement_groups():
            remove_placement_group(group)

    with polling(remove, seconds):
        yield
