"""What becomes of a labelled photo in training (paper section 4.2, after Zhang et al., ResNeSt, 2020).

The photo is resized so that its longer side is a random length from 0.5 to 2 times 520 pixels, then a crop
of 480 is cut at random, and half of the crops are mirrored. What is too small is filled up at the right and
below: black, without labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.ingest.normalize import nearest_indices
from datasets_prep.sources.base import IGNORED_LABEL
from pipelines.loading.rows import LABEL_COLUMNS, decode_labelled_row


@dataclass(frozen=True, slots=True)
class SegmentationCrops:
    """Random crops of a resized photo and its classes; see the module's docstring.

    Attributes:
        size: (height, width) of the crops.
        resize: longer side of a photo that is not rescaled, in pixels.
        rescale: the least and the largest factor by which that is multiplied.
        flip: mirror half of the samples.
    """

    size: tuple[int, int]
    resize: int
    rescale: tuple[float, float]
    flip: bool
    columns: ClassVar[tuple[str, ...]] = LABEL_COLUMNS
    target_dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)
    draws: ClassVar[int] = 4

    def __call__(
        self,
        row: dict[str, Any],
        draws: NDArray[np.float64],
        image_out: NDArray[np.uint8],
        target_out: NDArray[np.uint8],
    ) -> None:
        """See `crops.Crops`; the numbers are size, vertical and horizontal position, and flip."""
        image, labels = decode_labelled_row(row)
        there, wide = labels.shape
        height, width = rescaled_size(there, wide, self.resize, self.rescale, float(draws[0]))
        image = _resized(image, height, width)
        top, left = (
            int(draw * (max(0, there - wanted) + 1))
            for draw, there, wanted in zip(draws[1:3], (height, width), self.size, strict=True)
        )
        rows, columns = nearest_indices(labels.shape, (height, width))
        rows, columns = rows[top : top + self.size[0]], columns[left : left + self.size[1]]
        inside = np.s_[: len(rows), : len(columns)]
        if (len(rows), len(columns)) != self.size:
            image_out.fill(0)
            target_out.fill(IGNORED_LABEL)
        image_out[inside] = image[top : top + len(rows), left : left + len(columns)]
        target_out[inside] = labels[rows[:, None], columns[None, :]]
        if self.flip and draws[3] < 0.5:
            image_out[...] = cv2.flip(image_out, 1)
            target_out[...] = cv2.flip(target_out, 1)


def rescaled_size(
    height: int, width: int, resize: int, rescale: tuple[float, float], draw: float
) -> tuple[int, int]:
    """(height, width) of a photo whose longer side becomes a random length; its aspect is kept.

    Args:
        resize, rescale: the length is uniform among the whole numbers from `resize` times the least to
            `resize` times the largest factor.
        draw: in [0, 1).
    """
    shortest, longest = (int(resize * factor) for factor in rescale)
    longer = shortest + int(draw * (longest - shortest + 1))
    factor = longer / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
