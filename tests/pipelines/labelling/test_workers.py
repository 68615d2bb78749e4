"""How many actors label."""

import pytest

from pipelines.config import LabelConfig
from pipelines.labelling.workers import workers_of


@pytest.mark.parametrize(("gpus", "share", "workers"), [
    (2, 0.5, 4), (2, 0.4, 4), (3, 1.0, 3), (1, 0.3, 3), (0, 0.5, 1),
])  # fmt: skip
def test_as_many_as_fit_where_none_has_parts_of_two_gpus(gpus, share, workers, monkeypatch):
    resources = {"GPU": float(gpus)} if gpus else {}
    monkeypatch.setattr("pipelines.labelling.workers.ray.cluster_resources", lambda: resources)
    assert workers_of(LabelConfig(gpus=share), use_gpu=True) == workers
