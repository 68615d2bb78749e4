"""Training and evaluation in this process, without Ray Train and MLflow: many short runs in a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import dpt
from datasets_prep.manifest import PreparedDataset
from pipelines.config import TrainConfig
from pipelines.evaluation.relative_depth import relative_share
from pipelines.loading.batches import training_batches
from pipelines.loading.on_device import on_device
from pipelines.training.loop import loader_settings
from pipelines.training.optimizer import create_optimizer, set_learning_rates
from pipelines.training.ranks import Ranks
from pipelines.training.start import build_model
from pipelines.training.step import TrainingStep


def trained(config: TrainConfig, datasets: Sequence[PreparedDataset], device: str = "cpu") -> dpt.DPT:
    """The model that a run of `config` on `datasets`, sorted by name, ends with; on `device`."""
    torch.manual_seed(config.seed)
    model = build_model(config.model, config.crop_size).to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    ranks, optimizer = Ranks(), create_optimizer(model, config)
    names = [dataset.name for dataset in datasets]
    step = TrainingStep(model, model, optimizer, None, config, names, ranks)
    batches = training_batches(loader_settings(config, datasets, 0, ranks), config.loader_workers)
    for number, batch in enumerate(on_device(batches, torch.device(device)), start=1):
        set_learning_rates(optimizer, config, number - 1)
        step(batch, number)
    return model.eval()


def skills(model: dpt.DPT, datasets: Sequence[PreparedDataset], config: TrainConfig) -> dict[str, float]:
    """Dataset → skill of `model` on its held-out images, of `datasets` that have some."""
    return {
        dataset.name: relative_share(model, dataset, 0, 1, config.val_split, config.caps).result()["skill"]
        for dataset in datasets
        if config.val_split in dataset.manifest.samples
    }
