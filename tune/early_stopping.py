"""ASHA: trials that are worse than most were at their age end early (Li et al., MLSys 2020)."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune.plan import SweepPlan
from tune.runs import mark_stopped_early, open_child
from tune.trial import SweepPlace, finish_trial, is_finished


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
