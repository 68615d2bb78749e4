"""What depends on the task in a training run; loop, sampling plan and checkpoints are the same for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.manifest import PreparedDataset
from dpt.metrics import Sums
from pipelines.config import TrainConfig
from pipelines.loading.batches import Batch
from pipelines.loading.crops import Crops


class Task(ABC):
    """One task; created in every process, from the run's config alone.

    Attributes:
        protocol: of its validation, one of `pipelines.tracking.metric_keys.PROTOCOLS`.
        metric: key of the validation metric whose mean over datasets decides which checkpoint is the best.
        title: display name of the metric.
        larger_is_better: True for mIoU.
        prepares_model: whether `prepare_model` also changes a model that is not trained yet.
        config: of the run.
        names: of the datasets, in the order of `Batch.dataset`; empty where no losses are wanted.
    """

    protocol: ClassVar[str]
    metric: ClassVar[str]
    title: ClassVar[str]
    larger_is_better: ClassVar[bool] = False
    prepares_model: ClassVar[bool] = False

    def __init__(self, config: TrainConfig, names: Sequence[str] = ()) -> None:
        self.config, self.names = config, names

    @property
    @abstractmethod
    def crops(self) -> Crops:
        """How a shard row becomes a training crop."""

    @abstractmethod
    def require(self, dataset: PreparedDataset) -> None:
        """Check that the ground truth of a training `dataset` is the task's.

        Raises:
            NotADataset: saying what it has instead.
        """

    def set_apart(self, dataset: PreparedDataset) -> str:
        """Why a `dataset` that could be trained on is not, unless it is named; else empty."""
        return ""

    @abstractmethod
    def check(self, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
        """Check that a `model`, maybe on PyTorch's device `meta`, and the training `datasets` fit the task.

        Raises:
            ConfigError, NotADataset: naming what does not fit.
        """

    @property
    def conditions(self) -> str:
        """Which pixels validation compares, where that depends on the config; else empty."""
        return ""

    def prepare_model(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], say: Callable[[str], None]
    ) -> dpt.DPT:
        """The model that training starts from, made in the driver of the one that the config names.

        The `model` is on the CPU and may be changed in place; `datasets` are those of training. `say` takes a
        line for the user.
        """
        return model

    def weights(self, target: Tensor) -> Tensor | None:
        """Weight of each image in the mean over the global batch; None for equal weights.

        Args:
            target: (B, H, W) of the crops' `target_dtype`.

        Returns:
            (B,) float64, non-negative, on its device.
        """
        return None

    @abstractmethod
    def losses(self, output: Any, batch: Batch) -> Tensor:
        """Loss of each image.

        Args:
            output: what the model in training mode returned, on its device, possibly in bfloat16.
            batch: its images and targets on the same device.

        Returns:
            (B,) float32.
        """

    @abstractmethod
    def evaluate_share(
        self, model: dpt.DPT, dataset: PreparedDataset, split: str, rank: int, world_size: int
    ) -> Sums:
        """Sums of a whole `model`, on its device, over one worker's share of a `split` of a `dataset`.

        It is that of number `rank`, from 0, of `world_size` workers.
        """

    @abstractmethod
    def sample_predictions(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
    ) -> NDArray[np.uint8]:
        """Contact sheet, (H, W, 3) uint8 RGB: image, ground truth and prediction of the first `count` images.

        They are of the `split` of the `datasets`, predicted by a whole `model` on its device.
        """
