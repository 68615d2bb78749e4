"""What a task decides of a training run; the loop, the data's order, the checkpoints know nothing of it."""

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
from pipelines.loading.crops import Crops


class Task(ABC):
    """One task; made anew in every process, from the run's config alone.

    Attributes:
        metric: of a validation; its mean over the validated datasets decides which checkpoint is the best.
        title: what people call it.
        larger_is_better: whether a larger one of them is.
        prepares_model: whether `starting_model` has something to do to a network that is not trained yet.
    """

    metric: ClassVar[str]
    title: ClassVar[str]
    larger_is_better: ClassVar[bool] = False
    prepares_model: ClassVar[bool] = False

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def crops(self) -> Crops:
        """What becomes of a shard row."""

    @abstractmethod
    def check(self, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
        """Find out before anything is started whether model and datasets fit the task.

        Args:
            model: without weights, on PyTorch's device `meta`.

        Raises:
            ConfigError, NotADataset: naming what does not fit.
        """

    def starting_model(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], say: Callable[[str], None]
    ) -> dpt.DPT:
        """The model that training starts from, made of one that comes from elsewhere; called by the driver.

        Args:
            model: as `config.model` names it, on the CPU.
            say: takes a line for the user.
        """
        return model

    def weights(self, target: Tensor) -> Tensor | None:
        """How much each image counts in the mean over a batch's images; None if all count alike.

        Args:
            target: (B, H, W) of the crops' `target_dtype`, on the CPU.

        Returns:
            (B,) float64, none of them negative. The mean is over the batch of all ranks.
        """
        return None

    @abstractmethod
    def losses(self, output: Any, target: Tensor) -> Tensor:
        """Loss of each image.

        Args:
            output: what the model in training returned, on its device; of reduced precision, maybe.
            target: (B, H, W) of the crops' `target_dtype`, on the same device.

        Returns:
            (B,) float32.
        """

    @abstractmethod
    def evaluate_share(
        self, model: dpt.DPT, dataset: PreparedDataset, split: str, rank: int, world_size: int
    ) -> Sums:
        """One worker's share of a dataset's split."""

    @abstractmethod
    def sample_predictions(
        self, model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
    ) -> NDArray[np.uint8]:
        """A contact sheet of the first `count` images: image, ground truth, prediction."""
