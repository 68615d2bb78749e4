"""Training crops of segmentation (paper section 4.2, after Zhang et al., ResNeSt, 2020).

The image is resized so that its longer side is a random length from 0.5 to 2 times 520 pixels, then a random
crop of 480 is taken, and half of the crops are mirrored. Smaller images are padded at the right and below:
black, without labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.ingest.normalize import nearest_indices
from datasets_prep.sources.base import IGNORED_LABEL
from pipelines.loading.crops import Crops, RandomNumbers, crop_start
from pipelines.loading.rows import LABEL_COLUMNS, Image, Row, decode_labelled_row


@dataclass(frozen=True, slots=True)
class SegmentationCrops(Crops):
    """Random crops of a resized image and its classes; see the module's docstring.

    The random numbers are size, vertical position, horizontal position and flip.

    Attributes:
        resize: longer side of an image at scale 1, in pixels.
        rescale: the smallest and the largest scale; the other fields as in `Crops`.
    """

    resize: int
    rescale: tuple[float, float]
    columns = LABEL_COLUMNS
    target_dtype = np.dtype(np.uint8)
    draws = 4

    def __call__(self, row: Row, draws: RandomNumbers, image_out: Image, target_out: NDArray[Any]) -> None:
        """See `Crops`."""
        image, labels = decode_labelled_row(row)
        height, width = labels.shape
        height, width = rescaled_size(height, width, self.resize, self.rescale, float(draws[0]))
        if image.shape[:2] != (height, width):
            how = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
        top, left = crop_start(draws[1], height, self.size[0]), crop_start(draws[2], width, self.size[1])
        # Only the crop's labels are resized: the nearest source row and column of each of its pixels.
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
    """(height, width) of a `height` × `width` image whose longer side becomes a random length.

    The length is uniform among the integers from `resize` times the smaller to `resize` times the larger
    number of `rescale`: 520 and (0.5, 2) → 260 … 1040. `draw` is in [0, 1). The aspect ratio is kept.
    """
    shortest, longest = (int(resize * factor) for factor in rescale)
    longer = shortest + int(draw * (longest - shortest + 1))
    factor = longer / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
