"""Batches at half size, from which a network learns the coarse layout at a fraction of the cost."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.loading.batches import Batch


def at_half_size(batch: Batch) -> Batch:
    """The `batch`, whose height and width are even, with means of 2 × 2 pixels instead of pixels.

    Ground truth that may be invalid (NaN) is the mean of its valid pixels, invalid where fewer than two are
    valid. Labels of classes have no mean; the upper left one stays.
    """
    corners = [batch.images[:, row::2, column::2].to(torch.int16) for row in (0, 1) for column in (0, 1)]
    mean = (corners[0] + corners[1] + corners[2] + corners[3] + 2) >> 2  # a half is rounded up
    return replace(batch, images=mean.to(torch.uint8), target=_halved(batch.target))


def _halved(target: Tensor) -> Tensor:
    if not target.is_floating_point():
        return target[:, ::2, ::2].contiguous()
    valid = ~target.isnan()
    share = F.avg_pool2d(valid.float(), 2)
    mean = F.avg_pool2d(target.float().nan_to_num(nan=0.0), 2) / share
    return torch.where(share < 0.5, torch.nan, mean).to(target.dtype)
