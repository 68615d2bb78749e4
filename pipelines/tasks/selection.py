"""Which of the datasets in a folder a run trains on: those that fit its task; the others are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from datasets_prep.manifest import NotADataset, PreparedDataset
from pipelines.config import TrainConfig
from pipelines.evaluation.selection import fitting_datasets
from pipelines.tasks.base import Task
from pipelines.tasks.registry import task_of


def training_datasets(
    config: TrainConfig, data: Sequence[str], show: Callable[[str], None]
) -> list[PreparedDataset]:
    """The prepared datasets to train on, sorted by name.

    Args:
        config: of the run; its task decides what fits.
        data: prepared datasets, which are all taken, or folders of several, of which those are taken that
            fit, or that weights, stages or settings of single datasets name.
        show: called with a line that names the others, with reasons.

    Raises:
        NotADataset: if there is none, or none fits.
    """
    stages = (stage.datasets for stage in config.stages)
    mentioned = set(config.weights).union(*stages, *config.of_datasets.values())
    misfit = partial(_misfit, config, task_of(config))
    return fitting_datasets(data, mentioned, misfit, f"task={config.task}", "not trained on", show)


def _misfit(config: TrainConfig, task: Task, dataset: PreparedDataset) -> str:
    """Why a run does not train on a dataset; empty if it does."""
    try:
        dataset.manifest.split(config.train_split)
        task.require(dataset)
    except NotADataset as error:
        return str(error)
    return task.set_apart(dataset)
