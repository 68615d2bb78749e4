"""Depth up to scale and shift, from any mixture of datasets (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from dpt.feature_alignment import FeatureAlignment
from dpt.layers.late_compiler import shapes_only
from dpt.losses import ScaleShiftInvariantLoss, of_both_parts
from dpt.metrics import MetricSums
from pipelines.config import ConfigError, TrainConfig
from pipelines.evaluation.relative_depth import relative_share, sample_predictions
from pipelines.loading.batches import Batch
from pipelines.loading.crops import Crops, RelativeDepthCrops
from pipelines.tasks.base import Task
from pipelines.tracking.metric_keys import RELATIVE


class RelativeDepth(Task):
    """Inverse depth up to scale and shift, by the trimmed loss with gradient matching.

    Of the run's `config` the section `loss` counts; `names` as in `Task`.
    """

    protocol = RELATIVE
    metric = "abs_rel"
    title = "AbsRel"

    def __init__(self, config: TrainConfig, names: Sequence[str] = ()) -> None:
        super().__init__(config, names)
        loss = config.loss
        self.criterion = ScaleShiftInvariantLoss(loss.trim, loss.gradient_weight, loss.gradient_scales)
        self._own = bool(loss.trims or loss.gradient_weights)
        trims = [loss.trims.get(name, loss.trim) for name in names]
        weights = [loss.gradient_weights.get(name, loss.gradient_weight) for name in names]
        self._trims, self._weights = torch.tensor(trims, dtype=torch.float64), torch.tensor(weights)

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
        if self.config.feature_alignment.datasets:
            self._check_encoder(model)

    def _check_encoder(self, model: dpt.DPT) -> None:
        name = self.config.feature_alignment.encoder
        try:
            with shapes_only():
                channels = FeatureAlignment(name, model.config, pretrained=False).channels
        except ValueError as error:
            raise ConfigError(f"feature_alignment.encoder: {error}") from error
        if channels != (own := model.backbone.channels[-1]):
            raise ConfigError(
                f"feature_alignment.encoder: {name} has features of {channels} channels, those of the model "
                f"have {own}: choose an encoder of the same width"
            )

    def losses(self, output: Any, batch: Batch) -> Tensor:
        """As `Task.losses`, of inverse depth (B, H, W); the target is NaN where invalid."""
        target = batch.target.float()
        maps = output.float(), target.nan_to_num(0.0), ~target.isnan()
        settings = self._settings_of(batch.dataset, target.device)
        if batch.box.numpy().any():
            return of_both_parts(self.criterion, batch.box, *maps, *settings)
        losses: Tensor = self.criterion(*maps, *settings)
        return losses

    def _settings_of(self, dataset: Tensor, device: torch.device) -> list[Tensor | float]:
        """Trim and weight of gradient matching of each image by its `dataset`; [] if all have the same."""
        if not self._own:
            return []
        weights = self._weights[dataset]
        matching = weights.to(device, non_blocking=True) if weights.numpy().any() else 0.0
        return [self._trims[dataset].to(device, non_blocking=True), matching]

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
