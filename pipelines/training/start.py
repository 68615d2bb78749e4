"""The model that a run starts from: a new one of the zoo or a trained one, prepared for the run's task.

A prepared model is saved in the run's own folder, `<run>/start`, so that every training process and every
resumption starts from the same weights, even if the original is gone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

import dpt
from datasets_prep.storage.folder import Folder
from dpt.layers.late_compiler import shapes_only
from dpt.weights.folder import CONFIG, WEIGHTS
from pipelines.config import ConfigError, ModelSection, TrainConfig
from pipelines.tracking.model_reference import load_checkpoint, load_model

if TYPE_CHECKING:
    from datasets_prep.manifest import PreparedDataset

START_FOLDER = "start"


def model_without_weights(config: TrainConfig) -> dpt.DPT:
    """A new model of a `config` that takes no memory, to check what `build_model` checks.

    Raises:
        ConfigError: see `build_model`.
    """
    with shapes_only():
        return build_model(config.model.model_copy(update={"pretrained": False}), config.crop_size)


def build_model(section: ModelSection, crop: tuple[int, int]) -> dpt.DPT:
    """A new model of a config `section`; its inference size is the height of the training `crop` (h, w).

    Raises:
        ConfigError: if there is no such model or override, or a value does not fit.
    """
    settings = {"image_size": crop[0], **_typed(section.overrides)}
    try:
        return dpt.create_model(section.name, pretrained=section.pretrained, **settings)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:  # sizes that PyTorch cannot build
        raise ConfigError(f"model: {error}") from error


def _typed(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The `overrides`, each as the type of its field; unknown ones as they are."""
    types, typed = get_type_hints(dpt.ModelConfig), dict(overrides)
    for key in overrides.keys() & types.keys():
        try:
            typed[key] = TypeAdapter(types[key]).validate_python(overrides[key])
        except ValidationError as error:  # noqa: PERF203 (a handful)
            problem = error.errors()[0]["msg"]
            raise ConfigError(f"model.overrides.{key}: {problem}, got {overrides[key]!r:.100}") from error
    return typed


def compile_model(model: dpt.DPT, config: TrainConfig, device: torch.device) -> None:
    """Have a `model` that trains on a `device` compiled as the `config` says, when it first runs."""
    optimizer = config.optimizer
    eager = optimizer.objective == "multi_objective" and not (
        optimizer.two_passes or config.parallel == "fsdp"
    )
    automatic = "regions" if device.type == "cuda" and not eager else "none"
    how = automatic if config.compile == "auto" else config.compile
    if how == "regions":
        model.compile_regions()
    elif how == "model":
        model.compile()


def initial_model(section: ModelSection, run: Folder) -> dpt.DPT | None:
    """The trained model that a run starts from, on the CPU; None if it starts from a new one.

    It is the copy in the folder `run` if there is one, else what the config `section` names.

    Raises:
        TrackingError, NotFound, BadModel: if it is missing or cannot be read.
    """
    if run.exists(f"{START_FOLDER}/{CONFIG}"):
        return load_checkpoint((run / START_FOLDER).uri)
    return None if section.start is None else load_model(section.start)


def save_initial_model(
    config: TrainConfig,
    model: dpt.DPT | None,
    datasets: Sequence[PreparedDataset],
    run: Folder,
    say: Callable[[str], None],
) -> str | None:
    """Prepare the model that a run of `config` on `datasets` starts from, and save it in the folder `run`.

    A no-op if it is there. `model` is what `initial_model` returned; `say` takes a line for the user.

    Returns:
        the saved model's folder; None where each training process builds the model by itself.
    """
    from pipelines.tasks.registry import task_of  # needs Ray; `dpt config` needs only the functions above

    folder = run / START_FOLDER
    if not folder.exists(CONFIG):
        task = task_of(config)
        if model is None and not task.prepares_model:
            return None
        with torch.random.fork_rng(devices=[]):  # a new model's weights follow from the run's seed
            torch.manual_seed(config.seed)
            model = model or build_model(config.model, config.crop_size)
        model = task.prepare_model(model, datasets, say)
        with tempfile.TemporaryDirectory(prefix="dpt-start-") as scratch:
            dpt.save_model(model, scratch)
            for name in (WEIGHTS, CONFIG):  # the config last: it marks the copy as complete
                with folder.writing(name) as path:
                    shutil.copyfile(Path(scratch) / name, path)
    return folder.uri
