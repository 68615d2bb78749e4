"""What a trial knows of where it runs."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pipelines.cluster.session import wants_gpu
from pipelines.tracking.runs import Run
from tune import trial
from tune.trial import SweepPlace, run_trial


@pytest.mark.parametrize(("cluster", "believed"), [("cluster.example:6379", True), (None, False)])
def test_gpus_that_a_cluster_has_yet_to_start_are_believed_in(cluster, believed, monkeypatch):
    """Only the sweep's own process has the cluster's address in its environment; trials are actors."""
    found: list[bool] = []

    class Work:
        def __init__(self, *arguments: Any) -> None:
            pass

        def run(self) -> None:
            found.append(wants_gpu("cuda"))

    monkeypatch.setattr(trial, "_Work", Work)
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    # Put back what the trial sets.
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    board: Any = SimpleNamespace(
        stop_requested=SimpleNamespace(remote=lambda heeds, who: False),
        write=SimpleNamespace(remote=lambda line: None),
    )
    plan: Any = SimpleNamespace(trials=[SimpleNamespace(path="variant/s0")])
    place = SweepPlace("runs", Run("sqlite:///mlflow.db", "0"), 1, cluster)
    outcome = run_trial({"trial": 0}, plan, place, board)
    assert found == ([True] if believed else [])
    assert outcome["outcome"] == ("finished" if believed else "failed")
    if not believed:
        assert outcome["reason"] == "device: cuda is asked for, but this machine has no GPU"
