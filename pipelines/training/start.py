"""What a run starts from: a network of the table, or a trained model, made fit for the run's task.

A trained model is copied into the run's own folder, `<run>/start`, so that every training process and every
resumption starts from the same weights, whatever becomes of the place that they came from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import dpt
from datasets_prep.manifest import PreparedDataset
from datasets_prep.storage.folder import Folder
from dpt.weights.folder import CONFIG, WEIGHTS
from pipelines.config import ConfigError, ModelSection, TrainConfig
from pipelines.tasks.base import Task
from pipelines.tracking.model_reference import load_network

START_FOLDER = "start"


def build_model(section: ModelSection, crop: tuple[int, int]) -> dpt.DPT:
    """The network of a config, not trained yet; it remembers the height of its training crops as its own
    inference size.

    Raises:
        ConfigError: if there is no such model or override.
    """
    settings = {"image_size": crop[0], **section.overrides}
    try:
        return dpt.create_model(section.name, pretrained=section.pretrained, **settings)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def trained_model(section: ModelSection, run: Folder) -> dpt.DPT | None:
    """The trained model that a config starts from, on the CPU: the run's own copy if it has one.

    Raises:
        TrackingError, NotFound, BadModel: if there is none, or it cannot be read.
    """
    if _is_kept(run):
        return load_kept((run / START_FOLDER).uri)
    return None if section.start is None else load_network(section.start)


def keep(
    config: TrainConfig,
    task: Task,
    model: dpt.DPT | None,
    datasets: Sequence[PreparedDataset],
    run: Folder,
    say: Callable[[str], None],
) -> str | None:
    """Make the run's copy of the model that it starts from, if it is not there yet.

    Args:
        model: as `trained_model` gave it.

    Returns:
        the copy's folder; None where each training process makes the network by itself.
    """
    folder = run / START_FOLDER
    if not _is_kept(run):
        if model is None and not task.prepares_model:
            return None
        model = model or build_model(config.model, config.crop_size)
        _save(task.starting_model(model, datasets, say), folder)
    return folder.uri


def load_kept(uri: str) -> dpt.DPT:
    """A run's copy, in evaluation mode on the CPU."""
    folder = Folder(uri)
    with tempfile.TemporaryDirectory(prefix="dpt-start-") as scratch:
        for name in (WEIGHTS, CONFIG):
            (Path(scratch) / name).write_bytes(folder.read_bytes(name))
        return dpt.load_model(scratch)


def _is_kept(run: Folder) -> bool:
    return run.exists(f"{START_FOLDER}/{CONFIG}")


def _save(model: dpt.DPT, folder: Folder) -> None:
    """Write both files, each whole or not at all, and last the one that says that the copy is there."""
    with tempfile.TemporaryDirectory(prefix="dpt-start-") as scratch:
        dpt.save_model(model, scratch)
        for name in (WEIGHTS, CONFIG):
            with folder.writing(name) as path:
                shutil.copyfile(Path(scratch) / name, path)
