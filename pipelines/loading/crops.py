"""What becomes of a shard row in training: each task has crops of its own kind.

They travel to the loading processes, so they are plain data, and their modules import no more than decoding
needs: neither Ray nor MLflow nor, if it can be, PyTorch, which would be imported after every start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.loading.rows import crop_and_flip, decode_row
from pipelines.loading.shard_reader import TRAINING_COLUMNS


class Crops(Protocol):
    """Makes a training crop of a row: a function of the row and of the numbers drawn for its position.

    Attributes:
        size: (height, width) of the crops in pixels.
        columns: of the shards, that are read; `sample_id` and `scale` among them.
        target_dtype: of the targets.
        draws: how many random numbers a crop takes.
    """

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def target_dtype(self) -> np.dtype[Any]: ...  # noqa: D102
    @property
    def draws(self) -> int: ...  # noqa: D102

    def __call__(
        self,
        row: dict[str, Any],
        draws: NDArray[np.float64],
        image_out: NDArray[np.uint8],
        target_out: NDArray[Any],
    ) -> None:
        """Decode and augment a row.

        Args:
            row: has `columns`.
            draws: (draws,) in [0, 1).
            image_out: (h, w, 3) RGB, contiguous; written to.
            target_out: (h, w) of `target_dtype`, contiguous; written to.

        Raises:
            ValueError: naming the sample, if it is damaged or has no such target.
        """


@dataclass(frozen=True, slots=True)
class RelativeDepthCrops:
    """Random crops of inverse depth in [0, 1], NaN where invalid (paper section 4.1).

    Attributes:
        flip: mirror half of the samples.
    """

    size: tuple[int, int]
    flip: bool
    columns: ClassVar[tuple[str, ...]] = TRAINING_COLUMNS
    target_dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float16)
    draws: ClassVar[int] = 3

    def __call__(
        self,
        row: dict[str, Any],
        draws: NDArray[np.float64],
        image_out: NDArray[np.uint8],
        target_out: NDArray[Any],
    ) -> None:
        """See `Crops`; the numbers are vertical and horizontal position, and flip."""
        crop_and_flip(*decode_row(row), draws, self.flip, image_out, target_out)
