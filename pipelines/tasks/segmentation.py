"""Semantic segmentation (paper section 4.2): ADE20K, Pascal Context."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from datasets_prep.sources.base import IGNORED_LABEL
from dpt.losses import SegmentationLoss
from dpt.metrics import SegmentationCounts
from dpt.weights.adapt import require_adaptable, with_classes
from pipelines.config import ConfigError, InferenceSection, TrainConfig
from pipelines.evaluation.segmentation import classes_of, count_share, sample_segmentations
from pipelines.loading.batches import Batch
from pipelines.loading.crops import Crops
from pipelines.loading.segmentation_crops import SegmentationCrops
from pipelines.tasks.base import Task
from pipelines.tracking.metric_keys import SEGMENTATION


class Segmentation(Task):
    """Cross-entropy with an auxiliary head; validated by mean IoU.

    A batch's loss is the mean over all labelled pixels of all its images, as in the paper's protocol: images
    are weighted by their labelled pixels, for any number of workers. Validation runs the network once on
    each whole image; sliding windows at several scales, as in the paper, are for `dpt evaluate`.

    Args:
        config: of the run; its section `segmentation` counts.
        names: as in `Task`.
    """

    protocol = SEGMENTATION
    metric = "miou"
    title = "mIoU"
    larger_is_better = True
    prepares_model = True

    def __init__(self, config: TrainConfig, names: Sequence[str] = ()) -> None:
        super().__init__(config, names)
        self.criterion = SegmentationLoss(config.segmentation.auxiliary_weight, IGNORED_LABEL)

    @property
    def crops(self) -> Crops:
        """Rescaled random crops."""
        settings = self.config.segmentation
        return SegmentationCrops(self.config.crop_size, self.config.flip, settings.resize, settings.rescale)

    def require(self, dataset: PreparedDataset) -> None:
        """As `Task.require`: needs labels of known classes."""
        classes_of(dataset)

    def check(self, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
        """As `Task.check`: needs one set of classes, and a decoder that can have batch normalisation."""
        _common_classes(datasets)
        if self.config.optimizer.objective != "average":
            raise ConfigError("optimizer.objective: task=segmentation has one loss, so it must be average")
        if len(set(self.config.crop_size)) > 1:
            raise ConfigError(f"crop: {self.config.crop} must be square for task=segmentation")
        try:
            require_adaptable(model.config)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error

    def prepare_model(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], say: Callable[[str], None]
    ) -> dpt.DPT:
        """As `Task.prepare_model`: with the datasets' classes; the seed initialises new layers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            adapted = with_classes(model, _common_classes(datasets))
        adapted.config = dataclasses.replace(adapted.config, image_size=self.config.crop_size[0])
        return adapted

    def weights(self, target: Tensor) -> Tensor:
        """As `Task.weights`: the number of labelled pixels of each image."""
        return (target != IGNORED_LABEL).sum(dim=(1, 2)).double()

    def losses(self, output: Any, batch: Batch) -> Tensor:
        """As `Task.losses`, of the logits of both heads against labels (B, H, W)."""
        logits, auxiliary = output
        losses: Tensor = self.criterion(logits, auxiliary, batch.target.long())
        return losses

    def evaluate_share(
        self, model: dpt.DPT, dataset: PreparedDataset, split: str, rank: int, world_size: int
    ) -> SegmentationCounts:
        """As `Task.evaluate_share`: pixel counts by label and prediction."""
        return count_share(model, dataset, rank, world_size, split, InferenceSection())

    def sample_predictions(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
    ) -> NDArray[np.uint8]:
        """As `Task.sample_predictions`, in colours of classes."""
        return sample_segmentations(model, datasets, split, count)


def _common_classes(datasets: Sequence[PreparedDataset]) -> tuple[str, ...]:
    """The classes of all datasets.

    Raises:
        NotADataset: if they have none, or different ones.
    """
    names = classes_of(datasets[0])
    for other in datasets[1:]:
        if classes_of(other) != names:
            raise NotADataset(
                f"{datasets[0].name} and {other.name} have different classes; a model learns a single set"
            )
    return names
