"""Depth up to scale and shift, from any mixture of datasets (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from dpt.losses import ScaleShiftInvariantLoss
from dpt.metrics import MetricSums
from pipelines.config import ConfigError, TrainConfig
from pipelines.evaluation.relative_depth import relative_share, sample_predictions
from pipelines.loading.crops import Crops, RelativeDepthCrops
from pipelines.tasks.base import Task
from pipelines.tracking.metric_keys import RELATIVE


class RelativeDepth(Task):
    """Inverse depth up to scale and shift, by the trimmed loss with gradient matching.

    Of the run's `config` the section `loss` counts.
    """

    protocol = RELATIVE
    metric = "abs_rel"
    title = "AbsRel"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        loss = config.loss
        self.criterion = ScaleShiftInvariantLoss(loss.trim, loss.gradient_weight, loss.gradient_scales)

    @property
    def crops(self) -> Crops:
        """Random crops, half of them mirrored."""
        return RelativeDepthCrops(self.config.crop_size, self.config.flip)

    def require(self, dataset: PreparedDataset) -> None:
        """As `Task.require`: needs depth maps."""
        kind = dataset.manifest.target_kind
        if kind in ("ordinal", "labels"):
            raise NotADataset(f"{dataset.name} has {kind} as ground truth, depth maps are needed here")

    def set_apart(self, dataset: PreparedDataset) -> str:
        """As `Task.set_apart`: what was prepared for fine-tuning does not join a mixture by itself."""
        kept = dataset.manifest.settings.get("resize") == "none"
        return f"{dataset.name} keeps its images' size (resize=none), as for fine-tuning" if kept else ""

    def check(self, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
        """As `Task.check`: needs depth maps, and a model of inverse depth."""
        for dataset in datasets:
            self.require(dataset)
        if model.config.task != "depth":
            raise ConfigError(f"model: this is a {model.config.task} model, but the task is depth")
        if model.config.predicts_depth:
            raise ConfigError("model: it predicts metric depth; task=depth needs one of inverse depth")

    def losses(self, output: Any, target: Tensor) -> Tensor:
        """As `Task.losses`, of inverse depth (B, H, W); the target is NaN where invalid."""
        target = target.float()
        losses: Tensor = self.criterion(output.float(), target.nan_to_num(0.0), ~target.isnan())
        return losses

    def evaluate_share(
        self, model: dpt.DPT, dataset: PreparedDataset, split: str, rank: int, world_size: int
    ) -> MetricSums:
        """As `Task.evaluate_share`: metrics after alignment."""
        return relative_share(model, dataset, rank, world_size, split, self.config.caps)

    def sample_predictions(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
    ) -> NDArray[np.uint8]:
        """As `Task.sample_predictions`, in inverse depth."""
        return sample_predictions(model, datasets, split, count)
