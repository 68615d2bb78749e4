"""Training crops: from a decoded row to its place in a batch's memory. Each task has its own kind of crops.

Crops travel to the loading processes, so they are plain data, and their modules import no more than decoding
needs: neither Ray nor MLflow nor PyTorch, whose import would delay every start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.loading.rows import Image, Row, decode_row
from pipelines.loading.shard_reader import TRAINING_COLUMNS

RandomNumbers = NDArray[np.float64]
"""In [0, 1)."""


@dataclass(frozen=True, slots=True)
class Crops(ABC):
    """Makes a training crop of a row: a function of the row and of the numbers drawn for its position.

    Attributes:
        size: (height, width) of the crops in pixels.
        flip: mirror half of the samples.
        columns: columns of the shards to read, `sample_id` and `scale` among them.
        target_dtype: of the targets.
        draws: how many random numbers a crop takes.
    """

    size: tuple[int, int]
    flip: bool
    columns: ClassVar[tuple[str, ...]] = TRAINING_COLUMNS
    target_dtype: ClassVar[np.dtype[Any]]
    draws: ClassVar[int]

    @abstractmethod
    def __call__(self, row: Row, draws: RandomNumbers, image_out: Image, target_out: NDArray[Any]) -> None:
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
class RelativeDepthCrops(Crops):
    """Random crops of inverse depth in [0, 1], NaN where invalid (paper section 4.1); fields as in `Crops`.

    The random numbers are vertical position, horizontal position and flip.
    """

    target_dtype = np.dtype(np.float16)
    draws = 3

    def __call__(self, row: Row, draws: RandomNumbers, image_out: Image, target_out: NDArray[Any]) -> None:
        """See `Crops`."""
        crop_and_flip(*decode_row(row), draws, self.flip, image_out, target_out)


def crop_start(draw: float, length: int, wanted: int) -> int:
    """First pixel of a crop of `wanted` of `length` pixels; uniform for a uniform `draw` in [0, 1).

    5 of 7 pixels can start at 0, 1 or 2. What is too short is taken from its beginning.
    """
    return int(draw * (max(0, length - wanted) + 1))


def crop_and_flip(
    image: Image,
    inverse_depth: NDArray[np.float16],
    draws: RandomNumbers,
    flip: bool,
    image_out: Image,
    inverse_depth_out: NDArray[np.float16],
) -> None:
    """A random crop of `image` (H, W, 3) and `inverse_depth` (H, W), mirrored half of the time if `flip`.

    It is written to `image_out` (h, w, 3) and `inverse_depth_out` (h, w), both contiguous; smaller images are
    padded as invalid. `draws` are three numbers in [0, 1): vertical position, horizontal position, flip.
    """
    (rows, columns), (height, width) = inverse_depth.shape, inverse_depth_out.shape
    top, left = crop_start(draws[0], rows, height), crop_start(draws[1], columns, width)
    mirror = flip and bool(draws[2] < 0.5)
    window = np.s_[top : top + height, left : left + width]
    inside = np.s_[: min(height, rows), : min(width, columns)]
    if rows < height or columns < width:
        image_out.fill(0)
        inverse_depth_out.fill(np.nan)
    _copy(image[window], image_out[inside], mirror)
    # OpenCV has no float16, but moves it as 16-bit integers.
    _copy(inverse_depth[window].view(np.int16), inverse_depth_out[inside].view(np.int16), mirror)


def _copy(source: NDArray[Any], target: NDArray[Any], mirror: bool) -> None:
    if not mirror:
        target[...] = source
        return
    # NumPy copies a mirrored row byte by byte: for RGB that takes as long as decoding the JPEG.
    cv2.flip(source, 1, dst=target)
