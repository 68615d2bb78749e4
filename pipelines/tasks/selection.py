"""Which of the datasets in a folder a run trains on: those that fit its task; the others are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets_prep.manifest import NotADataset, PreparedDataset, open_datasets
from datasets_prep.storage.folder import Folder
from pipelines.config import TrainConfig
from pipelines.tasks.base import Task
from pipelines.tasks.registry import task_of


def training_datasets(
    config: TrainConfig, data: Sequence[str], show: Callable[[str], None]
) -> list[PreparedDataset]:
    """The prepared datasets to train on, sorted by name.

    Args:
        config: of the run; its task decides what fits.
        data: prepared datasets, which are all taken, or folders of several, of which those are taken that
            fit, or that weights or stages name.
        show: called with a line that names the others, with reasons.

    Raises:
        NotADataset: if there is none, or none fits.
    """
    given, task = {Folder(uri).uri for uri in data}, task_of(config)
    mentioned = set(config.weights).union(*(stage.datasets for stage in config.stages))
    chosen, reasons = [], []
    for dataset in open_datasets(list(data)):
        # Its own folder, or that of one of its versions.
        places = {dataset.folder.uri, dataset.folder.uri.rpartition("/")[0]}
        named = dataset.name in mentioned or not given.isdisjoint(places)
        reason = "" if named else _misfit(config, task, dataset)
        if reason:
            reasons.append(reason)
        else:
            chosen.append(dataset)
    if not chosen:
        raise NotADataset(f"nothing in {', '.join(data)} fits task={config.task}: {'; '.join(reasons)}")
    if reasons:
        show(f"not trained on: {'; '.join(reasons)}; --data DATASET takes one by name")
    return chosen


def _misfit(config: TrainConfig, task: Task, dataset: PreparedDataset) -> str:
    """Why a run does not train on a dataset; empty if it does."""
    try:
        dataset.manifest.split(config.train_split)
        task.require(dataset)
    except NotADataset as error:
        return str(error)
    return task.set_apart(dataset)
