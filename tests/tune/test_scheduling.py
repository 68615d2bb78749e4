"""The cluster is divided such that all its cores are used, and every trial fits."""

from typing import Any

import pytest
import ray

from tune.scheduling import Placement, place_trials


@pytest.mark.parametrize(("cores", "wanted", "workers", "expected"), [
    ([2], None, 1, Placement(1, 2, 2)),
    ([2], 2, 1, Placement(2, 1, 3)),
    ([2], 8, 1, Placement(2, 1, 3)),
    ([0, 8, 8], None, 1, Placement(2, 8, 3)),
    ([8, 8], 3, 1, Placement(3, 4, 3)),
    ([8, 8], None, 2, Placement(1, 8, 2)),
    ([1, 1, 1], None, 1, Placement(3, 1, 4)),
    ([2, 1, 1], 2, 1, Placement(2, 1, 2)),
    ([1], None, 4, Placement(1, 1, 2)),
])  # fmt: skip
def test_cores(cores, wanted, workers, expected, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": float(count)}} for count in cores]
    dead: dict[str, Any] = {"Alive": False, "Resources": {"CPU": 64.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [dead, *nodes])
    found = place_trials(wanted, workers, use_gpu=False)
    assert found == expected
    assert sum(count // found.threads for count in cores) >= min(found.trials * workers, sum(cores))


@pytest.mark.parametrize(
    ("gpus", "wanted", "workers", "expected", "drivers"),
    [(8, None, 1, 8, 9), (8, None, 3, 2, 3), (8, 2, 1, 2, 2), (8, 20, 1, 20, 20), (0, None, 1, 1, 1)],
)
def test_gpus(gpus, wanted, workers, expected, drivers, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(gpus)} if gpus else {})
    assert place_trials(wanted, workers, use_gpu=True) == Placement(expected, 1, drivers)
