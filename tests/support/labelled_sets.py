"""Miniature segmentation sets for the tests: rendered, prepared, and a model that fits them."""

from pathlib import Path

import torch

import dpt
from datasets_prep.manifest import PreparedDataset
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.synthetic import write_dataset
from dpt.class_names import class_names
from dpt.weights.adapt import with_classes
from pipelines.config import TrainConfig
from tests.support import shards


def prepare(name: str, folder: Path, scenes: int = 12, raw: Path | None = None) -> PreparedDataset:
    """A segmentation set in `folder`, of rendered scenes unless `raw` files are given."""
    if raw is None:
        raw = folder / "raw" / name
        write_dataset(name, raw, scenes=scenes, height=60, width=80)
    plan = plan_ingest(name, str(raw), IngestSettings(resize="none", samples_per_shard=4))
    return shards.prepare(plan, str(folder / "shards"))


def tiny(dataset: str = "ade20k", dropout: float = 0.1) -> dpt.DPT:
    """An untrained model of a dataset's classes, always the same."""
    torch.manual_seed(0)
    model = with_classes(dpt.create_model("dpt_tiny"), class_names(dataset))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


def config(**changes: object) -> TrainConfig:
    """A training config for these sets."""
    settings: dict[str, object] = {
        "task": "segmentation",
        "model": {"name": "dpt_tiny", "pretrained": False},
        "segmentation": {"resize": 64},
        "optimizer": {"objective": "average", "backbone_lr": 0.02, "decoder_lr": 0.02, "schedule": "poly"},
        **{"batch_size": 4, "crop": 64, "steps": 20, "precision": "float32"},
    }
    return TrainConfig.model_validate(settings | changes)
