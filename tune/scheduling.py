"""How many trials run at once, such that the cluster is full and no trial waits for another for ever.

A trial's driver holds no CPU and no GPU: it takes a sliver of the head node's own resource, where it outlives
any worker node. Only its training processes hold something, all of them or, as a placement group, none. So
whatever is asked for, some trial can always go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.util.placement_group import PlacementGroup, remove_placement_group

from pipelines.cluster.session import cpus_per_worker, room_for_workers
from pipelines.training.board import polling
from tune.plan import SweepPlan
from tune.runs import mark_stopped_early, open_child
from tune.trial import SweepPlace, finish_trial, is_finished

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


_SECONDS = 5.0


@contextmanager
def removing_orphans(seconds: float = _SECONDS) -> Iterator[None]:
    """Inside the block, look every few seconds for orphans of this job, and remove them."""

    def remove() -> None:
        for group in _orphans():
            remove_placement_group(group)

    with polling(remove, seconds):
        yield


def _orphans() -> list[PlacementGroup]:
    """Those that actors of this job have made that are dead."""
    job = ray.get_runtime_context().get_job_id()
    # The public table does not tell who made a group.
    tables = state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(table) for table in tables]
    return [
        PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
        for group in groups
        if group.creator_job_id.hex() == job
        and group.creator_actor_dead
        and not ray.ActorID(group.creator_actor_id).is_nil()
        and not group.is_detached
        and group.state != PlacementGroupTableData.REMOVED
    ]


def scheduler(plan: SweepPlan) -> TrialScheduler:
    """What decides, validation by validation, which trials go on."""
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
    """Notes of a trial that the scheduler ended that it is over, so that it is not begun again."""

    def __init__(self, plan: SweepPlan, place: SweepPlace) -> None:
        self._plan, self._place = plan, place

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray Tune when a trial has ended without an error."""
        result = trial.last_result or {}
        ours = self._plan.trials[trial.config["trial"]]
        if "outcome" in result or "step" not in result or is_finished(self._place, ours):
            return
        run = open_child(self._plan, ours, self._place.parent)
        mark_stopped_early(run, result["step"])
        finish_trial(self._place.folder_of(ours), run, stopped_early=result["step"])
