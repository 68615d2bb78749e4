"""Depth in metres, fine-tuned from a model of relative depth (paper section 4.1, Tables 2 and 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from dpt.losses import SILogLoss, gradient_matching
from dpt.metrics import MetricSums
from pipelines.config import ConfigError, TrainConfig
from pipelines.evaluation.metric_depth import metric_pictures, metric_share, require_metric_data
from pipelines.evaluation.sets import MetricProtocol
from pipelines.loading.batches import Batch
from pipelines.loading.crops import Crops
from pipelines.loading.metric_crops import MetricDepthCrops
from pipelines.tasks.base import Task
from pipelines.tasks.global_alignment import average_alignment
from pipelines.tracking.metric_keys import METRIC

_FARTHEST = 10.0
"""Predicted depth is clamped to this multiple of the cap in the loss. Where an aligned prediction is not
positive, its inverse is 1e8 m without a gradient: a few such pixels would dominate the loss's mean log error,
and with it the gradient of all others."""


class MetricDepth(Task):
    """Depth in metres by the scale-invariant error in log space, from a globally aligned model.

    Of the run's `config` the section `metric_depth` counts; `names` as in `Task`.
    """

    protocol = METRIC
    metric = "abs_rel"
    title = "AbsRel"
    prepares_model = True

    def __init__(self, config: TrainConfig, names: Sequence[str] = ()) -> None:
        super().__init__(config, names)
        self.settings = config.metric_depth
        self.criterion = SILogLoss(self.settings.silog_weight)
        self.pixels = MetricProtocol(self.settings.cap, self.settings.region, self.settings.kb_crop)

    @property
    def conditions(self) -> str:
        """As `Task.conditions`: crop and cap."""
        return str(self.pixels)

    @property
    def crops(self) -> Crops:
        """Crops of depth in metres: rotated, mirrored, with colour jitter."""
        return MetricDepthCrops(self.config.crop_size, self.config.flip, self.settings)

    def require(self, dataset: PreparedDataset) -> None:
        """As `Task.require`: needs metric depth, with crops of original images in original pixels."""
        require_metric_data([dataset])
        rule = dataset.manifest.settings.get("resize")
        if rule != "none" and (self.settings.kb_crop or self.settings.border):
            raise NotADataset(
                f"{dataset.name} was resized (resize={rule}), but kb_crop and border count the pixels of "
                "the original images: prepare it with resize=none"
            )

    def check(self, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
        """As `Task.check`: needs metric depth, and a model of inverse depth."""
        for dataset in datasets:
            self.require(dataset)
        if model.config.task != "depth":
            raise ConfigError(f"model: this is a {model.config.task} model, but the task is metric_depth")
        if model.config.max_depth is not None:
            raise ConfigError("model: it ends in a sigmoid of depth; one of inverse depth is needed")

    def prepare_model(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], say: Callable[[str], None]
    ) -> dpt.DPT:
        """As `Task.prepare_model`: with the average scale and shift over the training set.

        Its own scale and shift are replaced. An untrained model has nothing to align: it starts with scale 1
        and shift 0, and learns inverse depth in 1/metres.
        """
        size = self.settings.image_size or model.config.image_size
        relative = dataclasses.replace(model.config, scale=1.0, shift=0.0, invert=False, image_size=size)
        model.config = relative
        if self.config.model.start is None:
            model.config = dataclasses.replace(relative, invert=True)
            return model
        found = average_alignment(model, datasets, self.config)
        left_out = f", {found.flat} without a scale left out" if found.flat else ""
        say(
            f"average robust alignment over {found.images} images{left_out}: "
            f"1/depth = {found.scale:.6g} · prediction + {found.shift:.6g}"
        )
        model.config = dataclasses.replace(relative, scale=found.scale, shift=found.shift, invert=True)
        return model

    def losses(self, output: Any, batch: Batch) -> Tensor:
        """As `Task.losses`, of depth (B, H, W) in metres; the target is NaN where invalid."""
        valid = ~batch.target.isnan()
        depth = output.float().clamp(max=_FARTHEST * self.settings.cap)
        target = batch.target.nan_to_num(1.0)
        losses: Tensor = self.criterion(depth, target, valid)
        if self.settings.gradient_weight:
            # Between logarithms of depth, as in Li and Snavely (2018).
            difference = depth.clamp(min=self.criterion.SMALLEST).log() - target.log()
            residual = difference.masked_fill(~valid, 0.0)
            matching = gradient_matching(residual, valid, self.settings.gradient_scales)
            losses = losses + self.settings.gradient_weight * matching
        return losses

    def evaluate_share(
        self, model: dpt.DPT, dataset: PreparedDataset, split: str, rank: int, world_size: int
    ) -> MetricSums:
        """As `Task.evaluate_share`: without alignment (`pipelines.evaluation.metric_protocol`)."""
        return metric_share(model, dataset, rank, world_size, split, self.pixels)

    def sample_predictions(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
    ) -> NDArray[np.uint8]:
        """As `Task.sample_predictions`, in inverse depth."""
        return metric_pictures(model, datasets, split, self.pixels, count)
