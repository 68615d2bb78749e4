"""The mean map: a baseline of relative depth that does not look at the image.

In most scenes the ground is below and near. The mean inverse depth of the training split knows that and
nothing else; aligned to an image like any prediction, it can have a low AbsRel. Skill, 1 - AbsRel / AbsRel of
the mean map, is what a model infers from the image: 0 for no better than the mean map, 1 for the truth.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, islice

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from datasets_prep.manifest import PreparedDataset, open_dataset
from dpt.alignment import median_and_deviation
from dpt.metrics import MetricSums
from pipelines.loading.rows import decode_any_inverse_depth
from pipelines.loading.shard_reader import EVALUATION_COLUMNS, ShardReader
from pipelines.tracking.metric_keys import MEAN_MAP, SKILL

FITTED_ON = "train"
"""Split that it is the mean of."""

SIDE = 64
"""Height and width of the map."""

_IMAGES = 256
"""The most images that it is the mean of: the first of the split, since shards are in random order."""


class SkillSums(MetricSums):
    """`MetricSums` whose result has the `skill`, if the sums have the AbsRel of the mean map."""

    def result(self) -> dict[str, float]:
        """As `MetricSums.result`; of no images, and where the mean map has no error, skill is NaN."""
        found = super().result()
        if MEAN_MAP in found:
            found[SKILL] = 1 - found["abs_rel"] / (found[MEAN_MAP] or float("nan"))
        return found


def has_mean_map(dataset: PreparedDataset) -> bool:
    """Whether `dataset` has the split that its mean map is fitted on."""
    return FITTED_ON in dataset.manifest.samples


def predict_mean_map(dataset: PreparedDataset, images: int, height: int, width: int) -> Tensor:
    """The mean map of a `dataset` with depth maps, as predictions (images, height, width) float64, all equal.

    Raises:
        NotADataset: if the dataset has no training split.
        ValueError: naming the sample, if its bytes are damaged.
    """
    fitted = torch.from_numpy(_mean_map(dataset.folder.uri))[None, None]
    return F.interpolate(fitted, size=(height, width), mode="bilinear")[0].expand(images, height, width)


@lru_cache(maxsize=64)
def _mean_map(uri: str) -> NDArray[np.float64]:
    """Mean of normalised inverse depth in the dataset's version folder `uri`, (SIDE, SIDE), median 0.

    Inverse depth is normalised as in the loss, to median 0 and mean absolute deviation 1 of an image, and
    averaged over the valid pixels of a cell; a cell without any is 0.
    """
    reader = ShardReader([open_dataset(uri)], FITTED_ON, [c for c in EVALUATION_COLUMNS if c != "image"])
    rows = chain.from_iterable(reader.rows(0, group) for group in range(len(reader.row_groups[0])))
    total, weight = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for row in islice(rows, _IMAGES):
        inverse_depth = torch.from_numpy(decode_any_inverse_depth(row).astype(np.float32))[None]
        valid = ~inverse_depth.isnan()
        median, deviation = median_and_deviation(inverse_depth, valid)
        if not deviation:
            continue  # a constant image has no shape
        normalised = ((inverse_depth - median) / deviation).nan_to_num(0.0)
        for cells, pixels in ((total, normalised), (weight, valid.float())):
            cells += cv2.resize(pixels[0].numpy(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    reader.close()
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
