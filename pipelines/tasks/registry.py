"""All tasks by their name in configs."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.config import TrainConfig
from pipelines.tasks.base import Task
from pipelines.tasks.metric_depth import MetricDepth
from pipelines.tasks.relative_depth import RelativeDepth
from pipelines.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "depth": RelativeDepth,
    "metric_depth": MetricDepth,
    "segmentation": Segmentation,
}


def task_of(config: TrainConfig, names: Sequence[str] = ()) -> Task:
    """The task of a run with this `config`; `names` as in `Task`."""
    return TASKS[config.task](config, names)
